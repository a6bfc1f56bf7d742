"""How much of a training step attention takes on a CPU, by torch's fused kernel and by ours.

    python benchmarks/attention_on_cpu.py [--side-px 448] [--pairs 128]

Trains steps of clipbert-mini's cross-encoder on pairs of a question and random tokens, with the
fused kernel and with what clipbert.model.bert chooses, in turn, and prints the ratio.
Needs .cache/clipbert-mini (make setup).
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from clipbert.checkpoints.folder import load_folder
from clipbert.engines.devices import default_dtype
from clipbert.model.bert import Attend, attend, attend_fused
from clipbert.training.recipe import Recipe
from clipbert.training.starting_model import prepare_model

MINI = Path(__file__).resolve().parents[1] / ".cache" / "clipbert-mini"
_NUM_TEXT_TOKENS = 12
_ROUNDS = 9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side-px", type=int, default=448)
    parser.add_argument("--pairs", type=int, default=128)
    arguments = parser.parse_args()
    dtype = default_dtype("cpu")
    tokens = (arguments.side_px // 64) ** 2 + _NUM_TEXT_TOKENS
    print(f"{arguments.pairs} pairs of {tokens} tokens, {dtype}; milliseconds of a step (median)")
    for dropout in (0.0, 0.1):
        ours = _make_step(arguments.side_px, arguments.pairs, dtype, dropout, attend)
        fused = _make_step(arguments.side_px, arguments.pairs, dtype, dropout, attend_fused)
        ours(), fused()
        pairs = [(_milliseconds(ours), _milliseconds(fused)) for _ in range(_ROUNDS)]
        ratio = statistics.median(theirs / own for own, theirs in pairs)
        own, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"dropout {dropout}: ours {own:.0f}, fused {theirs:.0f}, ratio {ratio:.2f}")


def _make_step(
    side_px: int, num_pairs: int, dtype: torch.dtype, dropout: float, attention: Attend
) -> Callable[[], None]:
    base = load_folder(MINI)
    base.network.config = dataclasses.replace(base.network.config, max_side_px=side_px)
    recipe = Recipe("qa", visual="frozen", plan="segments", frames_per_clip=1, dropout=dropout)
    model = prepare_model(base, recipe, answers=("yes", "no"), from_tokens=True).model.train()
    model.cross_encoder.encoder.attend_by(attention)
    generator = torch.Generator().manual_seed(0)
    side = side_px // 64
    visual = torch.randn(num_pairs, side, side, model.config.hidden_size, generator=generator)
    ids = torch.randint(1000, 20_000, (num_pairs, _NUM_TEXT_TOKENS), generator=generator)
    mask = torch.ones_like(ids)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = model(token_ids=ids, mask=mask, visual=visual, head="qa")
        model.zero_grad()
        logits.float().logsumexp(dim=1).mean().backward()

    return step


def _milliseconds(step: Callable[[], None]) -> float:
    begun = time.perf_counter()
    step()
    return 1000 * (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
