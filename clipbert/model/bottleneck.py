"""A ResNet's block and its frozen batch norm, with torchvision's parameter names.

They are written here rather than taken from torchvision, which imports torch's compiler: whatever
holds a model would wait for it, and keep it in memory.
"""

from typing import cast

import torch
from torch import Tensor, nn


class FrozenNorm(nn.Module):
    """Batch norm by fixed statistics: nothing of it is trained. Its output has its input's dtype.

    Under autocast, where features are bfloat16 and the statistics float32, a float32 output would
    make training keep 1.6 times as many bytes for the backward pass.
    """

    def __init__(self, num_channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Buffer(torch.ones(num_channels))
        self.bias = nn.Buffer(torch.zeros(num_channels))
        self.running_mean = nn.Buffer(torch.zeros(num_channels))
        self.running_var = nn.Buffer(torch.ones(num_channels))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, rows, columns) -> the same; computed in the wider of the dtypes."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()  # (C,)
        bias = self.bias - self.running_mean * scale
        normed = features * scale[:, None, None] + bias[:, None, None]
        return normed.to(features.dtype)


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1, added to the block's input.

    Source: He et al., CVPR 2016. `stride_in_1x1`: the paper strides in the first convolution, as
    the authors' detectron2 does; torchvision strides in the 3x3.
    """

    expansion = 4

    def __init__(
        self, num_inputs: int, width: int, *, stride: int = 1, stride_in_1x1: bool = False
    ) -> None:
        super().__init__()
        num_outputs = width * self.expansion
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv(num_inputs, width, 1, first)
        self.bn1 = FrozenNorm(width)
        self.conv2 = _conv(width, width, 3, second)
        self.bn2 = FrozenNorm(width)
        self.conv3 = _conv(width, num_outputs, 1)
        self.bn3 = FrozenNorm(num_outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(_conv(num_inputs, num_outputs, 1, stride), FrozenNorm(num_outputs))
            if stride > 1 or num_inputs != num_outputs
            else None
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, inputs, rows, columns) -> (N, 4 * width, rows / stride, columns / stride)."""
        shortcut = features if self.downsample is None else self.downsample(features)
        inner = self.relu(self.bn1(self.conv1(features)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        return cast("Tensor", self.relu(self.bn3(self.conv3(inner)) + shortcut))


def _conv(num_inputs: int, num_outputs: int, side: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(num_inputs, num_outputs, side, stride=stride, padding=side // 2, bias=False)
