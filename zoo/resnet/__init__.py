"""ResNet architectures: V1, V2, D, RS and CIFAR."""
