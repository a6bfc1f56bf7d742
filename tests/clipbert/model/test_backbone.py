import pytest
import timm
import torch
import torchvision
from timm.layers.norm_act import freeze_batch_norm_2d

from clipbert.errors import ConfigError
from clipbert.model.backbone import build_backbone, fold_batch_norm
from clipbert.model.config import BackboneConfig

NARROW = BackboneConfig(stem_channels=8, width=4)
LITE = BackboneConfig(kind="timm", timm_model="tf_efficientnet_lite0")


def randomise_norms(backbone, seed=0):
    """Give the frozen norms statistics of their own, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in backbone.named_buffers():
        if name.endswith(("weight", "running_var")):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
        else:
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
    return backbone


def draw_frames(side, count=2):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_resnet_50_is_torchvisions():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(
        weights=None, norm_layer=torchvision.ops.misc.FrozenBatchNorm2d
    ).eval()
    randomise_norms(theirs)
    ours = build_backbone(BackboneConfig(stride_in_1x1=False)).eval()
    weights = {name: t for name, t in theirs.state_dict().items() if not name.startswith("fc.")}
    ours.load_state_dict(weights)
    frames = draw_frames(96, count=1)

    features = ours(frames)

    expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(frames))))
    expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(expected))))
    assert features.shape == (1, 2048, 3, 3)
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize("sides", [(64, 96), (97, 131)])
def test_efficientnet_lite0_is_timms_bit_for_bit(sides):
    theirs = freeze_batch_norm_2d(timm.create_model(LITE.timm_model, pretrained=False)).eval()
    randomise_norms(theirs)
    ours = build_backbone(LITE).eval()
    weights = theirs.state_dict()
    ours.network.load_state_dict({name: weights[name] for name in ours.network.state_dict()})
    frames = torch.randn(1, 3, *sides, generator=torch.Generator().manual_seed(1))
    outcomes = []

    for forward in (ours, theirs.forward_features):
        given = frames.clone().requires_grad_()
        features = forward(given)
        features.sum().backward()
        outcomes.append((features, given.grad))

    (our_features, our_gradient), (their_features, their_gradient) = outcomes
    assert list(ours.network.state_dict()) == [n for n in weights if "classifier" not in n]
    assert torch.equal(our_features, their_features)
    assert torch.equal(our_gradient, their_gradient)


@torch.inference_mode()
def test_stride_in_the_1x1_convolution_changes_numbers_but_not_shapes():
    ours = randomise_norms(build_backbone(NARROW))
    other = build_backbone(BackboneConfig(stem_channels=8, width=4, stride_in_1x1=False))
    other.load_state_dict(ours.state_dict())

    features, others = ours(draw_frames(64)), other(draw_frames(64))

    assert features.shape == others.shape == (2, 128, 2, 2)
    assert (features - others).abs().max() > 0.01 * features.abs().max()


@pytest.mark.parametrize("config", [NARROW, LITE])
@torch.inference_mode()
def test_folding_batch_norm_leaves_the_features_as_they_were(config):
    backbone = randomise_norms(build_backbone(config)).eval()
    frames = draw_frames(96)
    before = backbone(frames)

    fold_batch_norm(backbone)

    atol = 1e-4 * before.abs().max().item()
    torch.testing.assert_close(backbone(frames), before, atol=atol, rtol=0.0)
    assert not [name for name, _ in backbone.named_buffers()]


@torch.inference_mode()
def test_batch_norm_can_be_folded_in_bfloat16():
    backbone = randomise_norms(build_backbone(NARROW)).eval().bfloat16()
    frames = draw_frames(64).bfloat16()
    before = backbone(frames).float()

    fold_batch_norm(backbone)

    atol = 0.05 * before.abs().max().item()
    torch.testing.assert_close(backbone(frames).float(), before, atol=atol, rtol=0.0)


def test_folding_refuses_a_network_that_reads_a_convolution_twice():
    class Twice(type(build_backbone(NARROW))):
        def forward(self, frames):
            stem = self.conv1(frames)
            return self.bn1(stem) + stem

    backbone = randomise_norms(Twice(NARROW))

    with pytest.raises(RuntimeError, match="changed the features"):
        fold_batch_norm(backbone)


@pytest.mark.parametrize("config", [NARROW, LITE])
def test_training_leaves_the_norms_alone(config):
    backbone = randomise_norms(build_backbone(config)).train()
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}

    backbone(draw_frames(64)).sum().backward()

    assert all(torch.equal(buffer, before[name]) for name, buffer in backbone.named_buffers())


def test_the_stem_and_the_first_stage_are_not_trained():
    backbone = build_backbone(BackboneConfig())

    frozen = [p for p in backbone.parameters() if not p.requires_grad]

    assert (len(frozen), sum(p.numel() for p in frozen)) == (11, 222_400)  # the authors' counts


@torch.inference_mode()
def test_efficientnet_gives_a_grid_that_its_classifier_can_read():
    backbone = build_backbone(LITE).eval()

    features = backbone(draw_frames(128, count=1))

    assert features.shape == (1, 1280, 4, 4)
    assert backbone.num_channels == 1280


def test_an_unknown_timm_model_is_refused():
    with pytest.raises(ConfigError, match="'resnet_9000': timm has no such model"):
        build_backbone(BackboneConfig(kind="timm", timm_model="resnet_9000"))


def test_a_timm_model_without_a_grid_at_stride_32_is_refused():
    with pytest.raises(ConfigError, match="must give a grid at stride 32"):
        build_backbone(BackboneConfig(kind="timm", timm_model="test_vit"))


def test_features_stay_bfloat16_in_mixed_precision():
    backbone = build_backbone(NARROW)

    with torch.autocast("cpu", torch.bfloat16):
        features = backbone(torch.zeros(1, 3, 64, 64))

    assert features.dtype == torch.bfloat16
    assert next(backbone.parameters()).dtype == torch.float32
