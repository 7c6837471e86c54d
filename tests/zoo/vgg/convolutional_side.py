"""Runs torchvision's AlexNet and VGG as fully convolutional networks, like TF-Slim's.

torchvision pools the last feature map to its size at 224 px, so at other sizes it is
another network. This module applies torchvision's weights with PyTorch's functions.
Import it after importorskip.
"""

import torch
from torch.nn import functional

from tests.zoo.resnet import torch_side

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def outputs(theirs, images, modules):
    """Runs torchvision's model on images [B, H, W, 3] of any size.

    Returns:
      The outputs of the modules of `features`, by our names, then fc6, feature map,
      feature vector and logits.
    """
    module_outputs = torch_side.outputs(theirs.features, images, modules)
    x = torch.tensor(module_outputs.pop("logits").transpose(0, 3, 1, 2).copy())
    linear = torch.nn.Linear
    fc6, fc7, fc8 = (m for m in theirs.classifier if isinstance(m, linear))
    channels = x.shape[1]
    size = round((fc6.in_features / channels) ** 0.5)
    with torch.no_grad():
        kernel = fc6.weight.reshape(-1, channels, size, size)
        x = functional.relu(functional.conv2d(x, kernel, fc6.bias))
        parts = {"fc6": x}
        kernel = fc7.weight[:, :, None, None]
        x = functional.relu(functional.conv2d(x, kernel, fc7.bias))
        parts |= {"feature_map": x, "feature_vector": x.mean((2, 3))}
        parts["logits"] = functional.linear(x.mean((2, 3)), fc8.weight, fc8.bias)
    return module_outputs | {
        name: torch_side.to_ours(part) for name, part in parts.items()
    }


def our_outputs(model, normalised):
    """Returns our endpoints and logits; maps of one position become [B, C]."""
    parts = torch_side.with_our_logits(model, normalised)
    for name, array in parts.items():
        if array.shape[1:3] == (1, 1):
            parts[name] = array[:, 0, 0]
    return parts
