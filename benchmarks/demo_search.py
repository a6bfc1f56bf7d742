"""Which sample clip comes first for a text, by clipbert-mini's recall vectors alone?

    python benchmarks/demo_search.py [--model FOLDER]

The library only: no service, no database. Indexes samples/ as `clipbert up` does and ranks the
clips for the texts of the demo and for nine more. Cartoons and old film are known to be beyond the
model: one of the demo's texts and three of the others ask for them.
"""

import argparse
import json
import time
from collections.abc import Set
from dataclasses import asdict, dataclass
from pathlib import Path

from cli.commands.demo import SEARCHES
from clipbert.checkpoints.mini.build import build_mini
from clipbert.inference.clipbert import ClipBert
from clipbert.inference.clips import decode_clips
from clipbert.inference.requests import EncodedClips
from clipbert.sampling.plan import INDEX_PLAN
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.decode import probe_video

PROJECT = Path(__file__).resolve().parent.parent
OUT = PROJECT / "benchmarks" / "out" / "demo_search.json"
CACHE = PROJECT / ".cache"

# A text and the clips that show it.
DEMO_TEXTS: dict[str, Set[str]] = dict(SEARCHES)
OTHER_TEXTS: dict[str, Set[str]] = {
    "a bird": {"cockatoo.mp4"},
    "a puppy": {"samoyed.mp4"},
    "city lights": {"city_night.mpg"},
    "a houseplant by the window": {"potted_plant.mp4"},
    "a pen": {"coin_and_pen.mov"},
    "a coin on a table": {"coin_and_pen.mov"},
    "a rabbit on grass": {"bunny_meadow.mp4"},
    "an old car": {"grand_prix_1906.ogv"},
    "a racing car": {"grand_prix_1906.ogv"},
}


@dataclass(frozen=True)
class Row:
    text: str
    right_clip: str  # the best of those that show it
    rank: int
    score: float
    first_clip: str
    margin: float  # to the best wrong clip; negative when that one wins


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=CACHE / "clipbert-mini")
    arguments = parser.parse_args()
    if not (arguments.model / "config.json").is_file():
        build_mini(arguments.model, cache=CACHE / "wheels", progress=print)
    model = ClipBert.for_serving(arguments.model)

    began = time.perf_counter()
    library = {
        path.name: encode(path, model)
        for path in sorted((PROJECT / "samples").iterdir())
        if path.suffix != ".md"
    }
    index_seconds = time.perf_counter() - began
    demo = rank_all(DEMO_TEXTS, library, model)
    other = rank_all(OTHER_TEXTS, library, model)

    num_clips = sum(len(clips.tokens) for clips in library.values())
    print(f"{len(library)} videos, {num_clips} clips, indexed in {index_seconds:.1f} s\n")
    for name, rows in (("demo texts", demo), ("other texts", other)):
        print(f"{name}: {sum(row.rank == 1 for row in rows)} of {len(rows)} right first")
        for row in rows:
            print(
                f"  {row.text:<28} {row.right_clip:<20} rank {row.rank:>2}  score {row.score:.3f}"
                f"  margin {row.margin:+.3f}  first {row.first_clip}"
            )
    OUT.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "videos": len(library),
        "clips": num_clips,
        "index_seconds": round(index_seconds, 2),
        "demo": [asdict(row) for row in demo],
        "other": [asdict(row) for row in other],
    }
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\nwritten to {OUT.relative_to(PROJECT)}")


def encode(path: Path, model: ClipBert) -> EncodedClips:
    clips = plan_clips(probe_video(path), INDEX_PLAN)
    return model.encode_clips(decode_clips(path, clips, max_side_px=model.config.max_side_px))


def rank_all(
    texts: dict[str, Set[str]], library: dict[str, EncodedClips], model: ClipBert
) -> list[Row]:
    vectors = model.encode_texts(list(texts))  # (Q, R)
    rows = []
    for (text, wanted), vector in zip(texts.items(), vectors, strict=True):
        # A video's score is its best clip's.
        scores = {name: float((clips.recall @ vector).max()) for name, clips in library.items()}
        right = max(wanted, key=scores.__getitem__)
        best_wrong = max(score for name, score in scores.items() if name not in wanted)
        rows.append(
            Row(
                text=text,
                right_clip=right,
                rank=1 + sum(score > scores[right] for score in scores.values()),
                score=round(scores[right], 4),
                first_clip=max(scores, key=scores.__getitem__),
                margin=round(scores[right] - best_wrong, 4),
            )
        )
    return rows


if __name__ == "__main__":
    main()
