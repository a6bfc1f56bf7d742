"""EfficientNet-Lite0, the CNN of clipbert-mini, with timm's parameter names.

It is written here rather than taken from timm, which imports torchvision and with it torch's
compiler: whatever holds the default model would wait for it, and keep it in memory.
"""

import math

from torch import Tensor, nn
from torch.nn import functional

from clipbert.model.bottleneck import FrozenNorm

NUM_CHANNELS = 1280
_STEM_CHANNELS = 32
_NORM_EPS = 1e-3
# Blocks, side of the depthwise convolution, stride of the first block, expansion, channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetLite0(nn.Module):
    """Inverted residual blocks without squeeze and excitation, up to the head convolution.

    Source: Tan and Le, ICML 2019, and the Lite variant of its authors; timm's
    tf_efficientnet_lite0, whose batch norm is frozen here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = _Conv(3, _STEM_CHANNELS, 3, stride=2)
        self.bn1 = FrozenNorm(_STEM_CHANNELS, eps=_NORM_EPS)
        stages: list[nn.Module] = []
        channels = _STEM_CHANNELS
        for num_blocks, side, first_stride, expansion, num_outputs in _STAGES:
            blocks: list[nn.Module] = []
            for index in range(num_blocks):
                stride = first_stride if index == 0 else 1
                blocks.append(_block(channels, num_outputs, side, stride, expansion))
                channels = num_outputs
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = _Conv(channels, NUM_CHANNELS, 1)
        self.bn2 = FrozenNorm(NUM_CHANNELS, eps=_NORM_EPS)
        for module in self.modules():
            if isinstance(module, _Conv):
                module.begin()

    def forward_features(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 1280, H/32, W/32)."""
        features = functional.relu6(self.bn1(self.conv_stem(frames)))  # (N, 32, H/2, W/2)
        features = self.blocks(features)  # (N, 320, H/32, W/32)
        return functional.relu6(self.bn2(self.conv_head(features)))  # (N, 1280, H/32, W/32)


class _Conv(nn.Conv2d):
    """A convolution padded as TensorFlow does: with a stride, more at the end than at the start."""

    def __init__(
        self, num_inputs: int, num_outputs: int, side: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        padding = side // 2 if stride == 1 else 0
        super().__init__(
            num_inputs, num_outputs, side, stride, padding=padding, groups=groups, bias=False
        )

    def begin(self) -> None:
        """Draw weights as EfficientNet's authors do."""
        fan_out = math.prod(self.kernel_size) * self.out_channels // self.groups
        nn.init.normal_(self.weight, 0.0, math.sqrt(2.0 / fan_out))

    def forward(self, features: Tensor) -> Tensor:
        """(N, inputs, rows, columns) -> (N, outputs, rows / stride, columns / stride), upwards."""
        side, stride = self.kernel_size[0], self.stride[0]
        if stride > 1:
            rows, columns = (
                max((-(-length // stride) - 1) * stride + side - length, 0)
                for length in features.shape[-2:]
            )
            around = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
            features = functional.pad(features, around)
        return super().forward(features)


class _Separable(nn.Module):
    """The first block: a depthwise convolution and a pointwise one."""

    def __init__(self, num_inputs: int, num_outputs: int, side: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _Conv(num_inputs, num_inputs, side, stride=stride, groups=num_inputs)
        self.bn1 = FrozenNorm(num_inputs, eps=_NORM_EPS)
        self.conv_pw = _Conv(num_inputs, num_outputs, 1)
        self.bn2 = FrozenNorm(num_outputs, eps=_NORM_EPS)

    def forward(self, features: Tensor) -> Tensor:
        """(N, inputs, rows, columns) -> (N, outputs, rows / stride, columns / stride)."""
        inner = functional.relu6(self.bn1(self.conv_dw(features)))
        projected: Tensor = self.bn2(self.conv_pw(inner))
        return projected


class _InvertedResidual(nn.Module):
    """A pointwise convolution to more channels, a depthwise one, and a pointwise one to fewer."""

    def __init__(
        self, num_inputs: int, num_outputs: int, side: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        inner = num_inputs * expansion
        self.conv_pw = _Conv(num_inputs, inner, 1)
        self.bn1 = FrozenNorm(inner, eps=_NORM_EPS)
        self.conv_dw = _Conv(inner, inner, side, stride=stride, groups=inner)
        self.bn2 = FrozenNorm(inner, eps=_NORM_EPS)
        self.conv_pwl = _Conv(inner, num_outputs, 1)
        self.bn3 = FrozenNorm(num_outputs, eps=_NORM_EPS)
        self.has_shortcut = stride == 1 and num_inputs == num_outputs

    def forward(self, features: Tensor) -> Tensor:
        """(N, inputs, rows, columns) -> (N, outputs, rows / stride, columns / stride)."""
        inner = functional.relu6(self.bn1(self.conv_pw(features)))
        inner = functional.relu6(self.bn2(self.conv_dw(inner)))
        projected: Tensor = self.bn3(self.conv_pwl(inner))
        return projected + features if self.has_shortcut else projected


def _block(num_inputs: int, num_outputs: int, side: int, stride: int, expansion: int) -> nn.Module:
    if expansion == 1:
        return _Separable(num_inputs, num_outputs, side, stride)
    return _InvertedResidual(num_inputs, num_outputs, side, stride, expansion)
