"""A folder of stored tokens with labels: each video's answer is told by its tokens."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from clipbert.datasets.token_index import StoredVideo, write_index
from clipbert.model.config import ClipBertConfig

ANSWERS = ("red", "green", "blue")
CLIP_SECONDS = 2.0
NUM_CLIPS = 4


@dataclass(frozen=True)
class TokenCorpus:
    """`folder` holds tokens, `labels` a file of annotations for each task."""

    folder: Path
    labels: dict[str, Path]


def write_tokens(folder: Path, config: ClipBertConfig, *, num_videos: int = 24) -> TokenCorpus:
    """Write the tokens of videos v00 ..., and labels, of which every fourth is held out.

    In the last of each video's clips another colour is seen than in the others.
    """
    generator = torch.Generator().manual_seed(0)
    side, size = config.grid_side, config.hidden_size
    colours = torch.randn(len(ANSWERS), size, generator=generator)
    tokens, videos = folder / "tokens", {}
    tokens.mkdir(parents=True)
    lines: dict[str, list[dict[str, object]]] = {"qa": [], "retrieval": [], "multiple_choice": []}
    for number in range(num_videos):
        name, colour = f"v{number:02d}", number % len(ANSWERS)
        seen = torch.randn(NUM_CLIPS, side, side, size, generator=generator) * 0.2
        seen[:-1] += colours[colour]
        seen[-1] += colours[(colour + 1) % len(ANSWERS)]
        path = tokens / f"{name}.safetensors"
        vectors = torch.eye(len(ANSWERS))[[colour] * NUM_CLIPS]
        save_file({"tokens": seen.half(), "vectors": vectors.half()}, path)
        clips = tuple((CLIP_SECONDS * k, CLIP_SECONDS * (k + 1)) for k in range(NUM_CLIPS))
        videos[name] = StoredVideo(path, clips, CLIP_SECONDS * NUM_CLIPS)
        common = {"video": name, "split": "train" if number % 4 else "holdout"}
        answer, question = ANSWERS[colour], "what colour is it?"
        lines["qa"].append(common | {"question": question, "answer": answer})
        lines["retrieval"].append(common | {"caption": f"a {answer} thing {number}"})
        choice = {"question": question, "choices": list(ANSWERS), "answer": answer}
        lines["multiple_choice"].append(common | choice)
    write_index(tokens, videos.items())
    labels = {task: folder / f"{task}.jsonl" for task in lines}
    for task, path in labels.items():
        path.write_text("".join(json.dumps(line) + "\n" for line in lines[task]))
    return TokenCorpus(tokens, labels)
