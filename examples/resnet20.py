"""ResNet-20 for CIFAR-10, in plain torch, with the weights it was trained to.

The residual network of "Deep residual learning for image recognition" (He, Zhang, Ren
and Sun, 2015, section 4.2): 19 convolutions and one linear layer, 269,722 weights. Two
files are expected under ``AGOP_DATA``: `models/resnet20-12fca82f.th` (the weights, of
the project pytorch_resnet_cifar10) and `images/cifar10_test_jpeg_3k.npz` (images).

The layers to look at are ``conv1``, ``layer1.0.conv1``, ``layer1.0.conv2``, … up to
``layer3.2.conv2``, and ``linear``.
"""

import io
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two convolutions beside a shortcut that has no weights."""

    def __init__(self, given, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(given, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.missing = stride, (width - given) // 2

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        x = x[:, :, :: self.stride, :: self.stride]
        zeros = (0, 0, 0, 0, self.missing, self.missing)  # channels before and after
        return F.relu(out + F.pad(x, zeros))


def stage(given, width, stride):
    """Three blocks, the first of which may widen the image and make it smaller."""
    first = Block(given, width, stride)
    return nn.Sequential(first, Block(width, width, 1), Block(width, width, 1))


class ResNet20(nn.Module):
    """From images (n, 3, 32, 32) to the scores (n, 10) of the classes."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = stage(16, 16, 1)
        self.layer2 = stage(16, 32, 2)
        self.layer3 = stage(32, 64, 2)
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def load(path):
    """The trained network; its file has "module." before every name."""
    weights = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    network = ResNet20()
    counters = network.load_state_dict(weights, strict=False).missing_keys
    if not all(name.endswith("num_batches_tracked") for name in counters):
        raise ValueError(f"{path} holds another network: it lacks {counters}.")
    return network.eval()


def load_images(path, n_images):
    """The first images as the network expects them, (n, 3, 32, 32), and their classes.

    They went through JPEG: 80 % are recognised, of the originals 92 %.
    """
    with np.load(path) as file:
        stored, offsets, classes = file["jpeg"], file["offsets"], file["y"]
    files = (stored[a:b].tobytes() for a, b in pairwise(offsets[: n_images + 1]))
    images = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
    pixels = torch.from_numpy(images).float() / 255
    normalised = (pixels - torch.tensor(MEAN)) / torch.tensor(STD)
    return normalised.movedim(3, 1).contiguous(), classes[:n_images]
