import hashlib
import pickle
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from clipbert.checkpoints.tensor_files import hash_file, read_tensors
from clipbert.errors import CheckpointError

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}


class Payload:
    """What a pickle could run when it is loaded carelessly."""

    def __reduce__(self):
        return (print, ("ran",))


def write_old(path):
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)


def write_compressed(path):
    """As a zip program packs it: mapped from the file, it would be read as noise."""
    plain = path.with_name("plain.pt")
    torch.save(WEIGHTS, plain)
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in source.namelist():
            packed.writestr(name, source.read(name))


def write_parameters(path):
    torch.save({name: torch.nn.Parameter(tensor) for name, tensor in WEIGHTS.items()}, path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.pt", lambda path: torch.save(WEIGHTS, path)),
        ("a.pt", write_old),
        ("a.pt", write_compressed),
        ("a.pt", write_parameters),
        ("a.safetensors", lambda path: save_file(WEIGHTS, path)),
    ],
)
def test_tensors_are_read_from_every_kind_of_file(tmp_path, name, write):
    write(tmp_path / name)

    tensors = read_tensors(tmp_path / name)

    assert tensors.keys() == WEIGHTS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in WEIGHTS.items())
    assert not any(tensor.requires_grad for tensor in tensors.values())


def test_writing_into_what_was_read_leaves_the_file_alone(tmp_path):
    torch.save(WEIGHTS, tmp_path / "a.pt")
    before = hash_file(tmp_path / "a.pt")

    read_tensors(tmp_path / "a.pt")["a"].zero_()

    assert hash_file(tmp_path / "a.pt") == before


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (Payload(), r"is not a file of tensors alone: it asks for \S*print"),
        ({"a": Payload()}, r"is not a file of tensors alone: it asks for \S*print"),
        ([torch.ones(1)], "is not a dict of names and tensors, but a list"),
        (torch.ones(1), "is not a dict of names and tensors, but a Tensor"),
        ({"step": 3, "a": torch.ones(1)}, "1 of its 2 entries are something else: 'step'"),
        ({1: torch.ones(1)}, "1 of its 1 entries are something else: 1"),
        ({"a": torch.ones(2, device="meta")}, "something else: 'a'"),
        ({"a": torch.eye(2).to_sparse()}, "something else: 'a'"),
        (
            {"global_step": 9, "model_state_dict": WEIGHTS, "optim_state_dict": {}},
            r"dicts within a dict \(model_state_dict, optim_state_dict\).*weights alone",
        ),
    ],
)
def test_anything_but_a_dict_of_tensors_is_refused_unrun(tmp_path, capsys, content, complaint):
    torch.save(content, tmp_path / "a.pt")

    with pytest.raises(CheckpointError, match=complaint) as raised:
        read_tensors(tmp_path / "a.pt")

    assert "ran" not in capsys.readouterr().out
    assert "\n" not in str(raised.value)
    assert "weights_only" not in str(raised.value)  # torch tells how to run it; we do not


def test_a_plain_pickle_is_refused_unrun(tmp_path, capsys):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"a": Payload()}))

    with pytest.raises(CheckpointError, match=r"a\.pt is no"):
        read_tensors(tmp_path / "a.pt")

    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04"])
def test_a_file_that_holds_no_tensors_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(CheckpointError, match=name):
        read_tensors(tmp_path / name)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_short_is_refused(tmp_path, part):
    torch.save(WEIGHTS, tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: int(part * len(whole))])

    with pytest.raises(CheckpointError, match=r"a\.pt is not a checkpoint, or a damaged one"):
        read_tensors(tmp_path / "a.pt")


def test_damage_anywhere_in_a_pickle_is_an_error_or_a_dict_of_tensors(tmp_path):
    """Whatever torch raises is turned into one error."""
    write_old(tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (tmp_path / "a.pt").write_bytes(damaged)

        try:
            tensors = read_tensors(tmp_path / "a.pt")
        except CheckpointError:
            continue
        assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "nowhere.pt", tmp_path):
        with pytest.raises(CheckpointError, match="no such file"):
            read_tensors(path)


def test_a_file_is_known_by_its_bytes(tmp_path):
    torch.save(WEIGHTS, tmp_path / "a.pt")
    shutil.copy(tmp_path / "a.pt", tmp_path / "b.pt")

    expected = hashlib.sha256((tmp_path / "a.pt").read_bytes()).hexdigest()
    assert hash_file(tmp_path / "a.pt") == hash_file(tmp_path / "b.pt") == expected
