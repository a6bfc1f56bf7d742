import dataclasses
import json
import subprocess
import sys

import pytest

from clipbert.errors import CheckpointError, ConfigError
from clipbert.model.config import BackboneConfig, ClipBertConfig, GridEncoderConfig, HeadConfig

PRESETS = ["clipbert-base", "clipbert-mini", "clipbert-tiny"]
TINY = ClipBertConfig.preset("clipbert-tiny")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_config_json(name):
    config = ClipBertConfig.preset(name)

    text = json.dumps(config.to_json())

    assert ClipBertConfig.from_json(json.loads(text)) == config


@pytest.mark.parametrize("name", PRESETS)
def test_config_json_says_what_kind_of_model_it_is(name):
    fields = ClipBertConfig.preset(name).to_json()

    assert fields["model_type"] == "clipbert"
    assert fields["architectures"] == ["ClipBert"]


def test_grid_sides_are_those_of_the_paper():
    base = ClipBertConfig.preset("clipbert-base")

    sides = {px: dataclasses.replace(base, max_side_px=px).grid_side for px in (448, 512, 768, 800)}

    assert sides == {448: 7, 512: 8, 768: 12, 800: 12}


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'clipbert-huge'.*clipbert-base, clipbert-mini"):
        ClipBertConfig.preset("clipbert-huge")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"max_side_px": 100}, "max_side_px is 100: must be a multiple of 32, at least 64"),
        ({"max_side_px": 32}, "max_side_px is 32"),
        ({"mean": (1.0, 2.0)}, "mean is .* needs 3 finite numbers"),
        ({"std": (1.0, float("nan"), 1.0)}, "std is .* needs 3 finite numbers"),
        ({"std": (1.0, 0.0, 1.0)}, "std is .* must be above 0"),
        ({"channel_order": "hsv"}, "channel_order is 'hsv': must be one of rgb, bgr"),
        ({"num_rows": 1}, "num_rows is 1: frames of 128 px need at least 2"),
        ({"hidden_size": 0}, "hidden_size is 0: must be at least 1"),
        ({"num_attention_heads": 7}, "num_attention_heads is 7: must divide hidden_size 48"),
        ({"max_text_tokens": 65}, "max_text_tokens is 65: must be 3 to num_positions 64"),
        ({"dropout": 1.0}, "dropout is 1.0: must be at least 0 and below 1"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps is 0.0: must be above 0"),
        ({"aggregation": "sum"}, "aggregation is 'sum': must be one of mean, max, lse"),
        ({"heads": ()}, "answers has 8 texts: must be empty without qa"),
        ({"answers": ("yes",)}, r"heads\[qa\].num_outputs is 8: must be the number of answers, 1"),
        ({"answers": ("yes",) * 8}, "answers has 8 texts: each must stand once only"),
        ({"heads": (HeadConfig("retrieval", 2),) * 2}, "heads are .*: at most one of each"),
        ({"trained_heads": ("pretraining",)}, "trained_heads is 'pretraining': must be one of"),
        ({"recall": "zero_shot"}, "recall is 'zero_shot': needs grid_encoder.kind 'class_mixture'"),
        ({"recall": "trained"}, "recall is 'trained': must be one of zero_shot"),
    ],
)
def test_a_contradiction_is_refused_with_field_value_and_remedy(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        dataclasses.replace(TINY, **changes)


def test_a_recall_mixture_takes_no_more_classes_than_there_are():
    mini = ClipBertConfig.preset("clipbert-mini")

    with pytest.raises(ConfigError, match=r"recall_likeliest is 1001: must be 1 to .* 1000"):
        dataclasses.replace(mini, recall_likeliest=1001)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: HeadConfig("retrieval", 3),
            r"heads\[retrieval\].num_outputs is 3: must be 1 or 2",
        ),
        (lambda: HeadConfig("multiple_choice", 5), "num_outputs is 5: must be 1"),
        (
            lambda: HeadConfig("counting", 1),
            "heads.name is 'counting': must be one of retrieval, qa",
        ),
        (lambda: BackboneConfig(kind="vit"), "backbone.kind is 'vit': must be one of resnet, timm"),
        (lambda: BackboneConfig(kind="timm"), "backbone.timm_model is empty"),
        (lambda: BackboneConfig(timm_model="resnet18"), "must be empty for a 'resnet'"),
        (lambda: BackboneConfig(stage_blocks=(3, 4)), "stage_blocks is .* needs 4 numbers"),
        (lambda: GridEncoderConfig("class_mixture"), "grid_encoder.num_classes is 0: must be at"),
        (lambda: GridEncoderConfig("conv", 10), "grid_encoder.num_classes is 10: must be 0"),
    ],
)
def test_a_contradiction_in_a_part_is_refused(make, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("hidden_sizes",), 48, "hidden_sizes is unknown: the fields are aggregation, answers"),
        (("backbone", "depth"), 50, "backbone.depth is unknown"),
        (("hidden_size",), "48", "hidden_size is '48': must be an integer"),
        (("hidden_size",), True, "hidden_size is True: must be an integer"),
        (("dropout",), "none", "dropout is 'none': must be a number"),
        (("backbone", "stride_in_1x1"), 1, "backbone.stride_in_1x1 is 1: must be true or false"),
        (("mean",), 127, "mean is 127: must be a list"),
        (("mean",), [1, 2, "3"], r"mean\[2\] is '3': must be a number"),
        (("recall",), 1, "recall is 1: must be a text"),
        (("heads",), [{"name": "qa"}], r"heads\[0\].*num_outputs"),
        (("heads",), ["qa"], r"heads\[0\] is 'qa': must be an object"),
        (("model_type",), "bert", "model_type is 'bert': must be 'clipbert'"),
    ],
)
def test_a_wrong_config_json_is_refused_with_the_place(path, value, sentence):
    fields = TINY.to_json()
    parent = fields
    for name in path[:-1]:
        parent = parent[name]
    parent[path[-1]] = value

    with pytest.raises(ConfigError, match=sentence):
        ClipBertConfig.from_json(fields)


def test_fields_left_out_of_config_json_have_the_papers_values():
    config = ClipBertConfig.from_json({"model_type": "clipbert", "std": [1, 1, 1]})

    assert config == ClipBertConfig()


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_without_a_readable_config_json_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)

    with pytest.raises(CheckpointError, match=r"config\.json"):
        ClipBertConfig.from_folder(tmp_path)


def test_a_configuration_is_read_without_torch():
    program = "import sys, clipbert.model.config; print('torch' in sys.modules)"

    output = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert output.stdout.strip() == b"False"
