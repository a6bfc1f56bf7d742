"""The 2D CNN: frames -> feature maps at a 32nd of their size. Its batch norm is always frozen."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from clipbert.errors import ConfigError
from clipbert.model import efficientnet
from clipbert.model.bottleneck import Bottleneck, FrozenNorm
from clipbert.model.config import BACKBONE_STRIDE_PX, BackboneConfig

_PROBE_SIDE_PX = 64
_LITE = "tf_efficientnet_lite0"
# Largest difference that folding may make, relative to the largest feature.
_FOLDING_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_LOW_PRECISION_FOLDING_TOLERANCE = 0.1


class ResNetBackbone(nn.Module):
    """A bottleneck ResNet with torchvision's parameter names, up to its last stage.

    The stem and the first stage are not trained, as in the paper.

    Whether a stage strides in its first 1x1 convolution (the authors' detectron2) or in the 3x3
    (torchvision) is an option.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, config.stem_channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = FrozenNorm(config.stem_channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = config.stem_channels
        for index, num_blocks in enumerate(config.stage_blocks):
            width = config.width * 2**index
            stage = _stage(
                channels,
                width,
                num_blocks=num_blocks,
                stride=1 if index == 0 else 2,
                stride_in_1x1=config.stride_in_1x1,
            )
            self.add_module(f"layer{index + 1}", stage)
            channels = width * Bottleneck.expansion
        self.num_channels = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in (self.conv1, self.get_submodule("layer1")):
            module.requires_grad_(requires_grad=False)

    def forward(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) normalised pixels in the configured channel order -> (N, C, H/32, W/32)."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(frames))))  # (N, stem, H/4, W/4)
        for index in range(1, 5):
            features = self.get_submodule(f"layer{index}")(features)
        return cast("Tensor", features)


class TimmBackbone(nn.Module):
    """Any timm model whose features come at a 32nd of the frame's size.

    The features are those before pooling: an EfficientNet's include its head convolution, so
    that its classifier can be applied to each cell. That of clipbert-mini is our own, and the same.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        if config.timm_model == _LITE:
            self.network: nn.Module = efficientnet.EfficientNetLite0()
            self.num_channels = efficientnet.NUM_CHANNELS
            return
        self.network = _timm_network(config.timm_model)
        with torch.no_grad():
            features = self(torch.zeros(1, 3, _PROBE_SIDE_PX, _PROBE_SIDE_PX))
        cells = _PROBE_SIDE_PX // BACKBONE_STRIDE_PX
        if features.ndim != 4 or features.shape[2:] != (cells, cells):  # noqa: PLR2004
            raise ConfigError(
                f"backbone.timm_model is {config.timm_model!r}: must give a grid at stride 32, got "
                f"{tuple(features.shape)} for {_PROBE_SIDE_PX} px"
            )
        self.num_channels = int(features.shape[1])

    def forward(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) normalised pixels in the configured channel order -> (N, C, H/32, W/32)."""
        forward_features = cast("Callable[[Tensor], Tensor]", self.network.forward_features)
        return forward_features(frames)


Backbone = ResNetBackbone | TimmBackbone


def build_backbone(config: BackboneConfig) -> Backbone:
    """Make the CNN of a configuration, with random weights.

    Raises:
        ConfigError: timm has no such model, or it gives no grid at stride 32.
    """
    return TimmBackbone(config) if config.kind == "timm" else ResNetBackbone(config)


@torch.no_grad()
def fold_batch_norm(backbone: Backbone) -> None:
    """Multiply the frozen batch norms into the convolutions before them, in place.

    Half of a CNN's time on a CPU is then saved. The backbone afterwards has other parameters:
    it is for inference only, and cannot be saved.

    Raises:
        RuntimeError: the outputs are not what they were: the network uses a convolution's
            output in a second place.
    """
    parameter = next(backbone.parameters())
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(1, 3, _PROBE_SIDE_PX, _PROBE_SIDE_PX, generator=generator)
    frames = frames.to(parameter.device, parameter.dtype)
    before, pairs = _find_pairs(backbone, frames)
    for conv, norm_name in pairs:
        norm = backbone.get_submodule(norm_name)
        _fold(conv, norm)
        backbone.set_submodule(norm_name, _after_norm(norm))
    difference = (backbone(frames) - before).abs().max() / before.abs().max().clamp(min=1e-12)
    if difference > _FOLDING_TOLERANCE.get(parameter.dtype, _LOW_PRECISION_FOLDING_TOLERANCE):
        raise RuntimeError(f"folding batch norm changed the features by {float(difference):.2g}")


def _timm_network(name: str) -> nn.Module:
    # timm takes longer to import than torch, which our own networks should not wait for.
    import timm  # noqa: PLC0415
    from timm.layers.norm_act import freeze_batch_norm_2d  # noqa: PLC0415

    if not timm.is_model(name):
        raise ConfigError(f"backbone.timm_model is {name!r}: timm has no such model")
    network = timm.create_model(name, pretrained=False, num_classes=0)
    return cast("nn.Module", freeze_batch_norm_2d(network))


def _stage(
    num_inputs: int, width: int, *, num_blocks: int, stride: int, stride_in_1x1: bool
) -> nn.Sequential:
    first = Bottleneck(num_inputs, width, stride=stride, stride_in_1x1=stride_in_1x1)
    rest = [Bottleneck(width * Bottleneck.expansion, width) for _ in range(num_blocks - 1)]
    return nn.Sequential(first, *rest)


def _is_frozen_norm(module: nn.Module) -> bool:
    """Whether it is our or timm's frozen batch norm, which share their four buffers' names."""
    buffers = dict(module.named_buffers(recurse=False))
    return {"weight", "bias", "running_mean", "running_var"} <= set(buffers)


def _find_pairs(backbone: Backbone, frames: Tensor) -> tuple[Tensor, list[tuple[nn.Conv2d, str]]]:
    """Run the network once, and see which norm reads which convolution's output."""
    made_by: list[tuple[Tensor, nn.Conv2d]] = []  # holds the outputs, so that none is reused
    pairs: list[tuple[nn.Conv2d, str]] = []
    hooks = []

    def after_conv(module: nn.Module, _: object, output: Tensor) -> None:
        made_by.append((output, cast("nn.Conv2d", module)))

    def before_norm(name: str, inputs: tuple[Tensor, ...]) -> None:
        pairs.extend((conv, name) for output, conv in made_by if output is inputs[0])

    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after_conv))
        elif _is_frozen_norm(module):
            hooks.append(
                module.register_forward_pre_hook(
                    lambda _, inputs, name=name: before_norm(name, inputs)
                )
            )
    try:
        return backbone(frames), pairs
    finally:
        for hook in hooks:
            hook.remove()


def _fold(conv: nn.Conv2d, norm: nn.Module) -> None:
    buffers = {name: buffer.float() for name, buffer in norm.named_buffers(recurse=False)}
    scale = buffers["weight"] * (buffers["running_var"] + cast("float", norm.eps)).rsqrt()  # (C,)
    bias = buffers["bias"] - buffers["running_mean"] * scale
    if conv.bias is not None:
        bias = bias + conv.bias.float() * scale
    weight = conv.weight.float() * scale[:, None, None, None]
    conv.weight.copy_(weight)
    conv.bias = nn.Parameter(bias.to(conv.weight), requires_grad=conv.weight.requires_grad)


def _after_norm(norm: nn.Module) -> nn.Module:
    """Keep what timm's norms do besides: their activation."""
    return nn.Sequential(*norm.children()) if any(True for _ in norm.children()) else nn.Identity()
