"""An arch of every architecture generation."""

# The smallest of each; of those whose head or attention is of another kind, too.
ARCHS = (
    *("mobilenet_v1_025_128", "mobilenet_v2_035_96", "mobilenet_v3_small_075"),
    *("mobilenet_v3_large_minimalistic", "mobilenet_v4_conv_small"),
    *("mobilenet_v4_hybrid_medium", "resnet_v1_18", "resnet_v1_5_50", "resnet_v2_50"),
    *("resnet_d_50", "resnet_rs_50", "resnet_cifar_20", "efficientnet_b0"),
    *("efficientnet_lite0", "efficientnet_v2_b0"),
)
