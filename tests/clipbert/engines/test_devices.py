"""What is chosen by what a GPU can do; the GPUs are not real ones."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from clipbert.engines.devices import default_dtype
from clipbert.inference.clipbert import ClipBert
from clipbert.inference.requests import MatchRequest
from clipbert.model.config import ClipBertConfig
from clipbert.model.network import Network


class FakeDevices:
    """GPUs of which some multiply bfloat16."""

    def __init__(self, *with_bfloat16):
        self.with_bfloat16 = with_bfloat16
        self.limits = {}

    def num_gpus(self):
        return len(self.with_bfloat16)

    def has_bfloat16(self, index):
        return self.with_bfloat16[index]

    def limit_memory(self, index, share):
        self.limits[index] = share


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    ClipBert.create(ClipBertConfig.preset("clipbert-tiny"), seed=0).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("device", "dtype"),
    [("cuda:0", torch.bfloat16), ("cuda:1", torch.float16), ("cuda", torch.bfloat16)],
)
def test_each_gpu_has_the_16_bits_that_it_multiplies(device, dtype):
    assert default_dtype(device, devices=FakeDevices(True, False)) == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_heads_and_logits_are_float32_beside_a_network_of_16_bits(tiny_folder, dtype):
    model = ClipBert.for_serving(tiny_folder, dtype=dtype)
    network = model.network
    ids = torch.ones(2, 3, dtype=torch.int64)
    h = w = model.config.grid_side
    visual = torch.zeros(2, h, w, model.config.hidden_size, dtype=dtype)

    logits = network(ids, torch.ones(2, 3), visual, head="retrieval")

    assert network.text_embeddings.word_embeddings.weight.dtype == dtype
    assert {weight.dtype for weight in network.heads.parameters()} == {torch.float32}
    assert logits.dtype == torch.float32


def test_heads_stay_float32_under_autocast_too():
    network = Network.create(ClipBertConfig.preset("clipbert-tiny"), seed=0)
    ids = torch.ones(1, 3, dtype=torch.int64)
    h = w = network.config.grid_side
    visual = torch.zeros(1, h, w, network.config.hidden_size)

    with torch.autocast("cpu", torch.bfloat16):
        logits = network(ids, torch.ones(1, 3), visual, head="retrieval")

    assert logits.dtype == torch.float32


def test_float16_gives_nearly_the_same_scores(tiny_folder):
    full, halved = (
        ClipBert.for_serving(tiny_folder, dtype=d) for d in (torch.float32, torch.float16)
    )
    frames = np.random.default_rng(0).integers(0, 256, (1, 40, 60, 3), np.uint8)
    request = MatchRequest(tokens=full.encode_clips([frames]).tokens, text="a dog")

    (one,), (other,) = full.score_all([request]), halved.score_all([request])

    assert one.score == pytest.approx(other.score, abs=0.01)


class Transfers(TorchDispatchMode):
    """Notes what is copied to another device."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.ops.aten._to_copy.default and kwargs.get("device") is not None:
            self.seen.append((args[0].numel(), args[0].dtype))
        return function(*args, **kwargs)


def test_frames_travel_to_the_device_as_bytes_and_are_fitted_there(tiny_folder):
    model = ClipBert.for_serving(tiny_folder)
    model.network.to("meta")  # a device that is nowhere, and to which copies show all the same
    frames = np.zeros((1, 40, 60, 3), np.uint8)

    with Transfers() as transfers, pytest.raises(NotImplementedError):  # nothing comes back
        model.encode_clips([frames])

    assert max(transfers.seen)[1] == torch.uint8
