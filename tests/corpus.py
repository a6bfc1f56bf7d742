"""A small labelled corpus: coloured shapes that move, with annotation files in the real formats.

Every label is told by the pixels, so that a model can learn it: `write_corpus(tmp_path)` writes 50
videos of 1.5 seconds, as many pictures, and one annotation file for each kind in KINDS, in about
half a second. The same seed gives the same corpus.

    corpus = write_corpus(tmp_path)
    corpus.videos                       # the folder of video00.mp4 ...
    corpus.files["msrvtt_qa"]           # {"video_id": "video00", "question": "what color ...", ...}
    corpus.scenes[0]                    # Scene(name="video00", shape="circle", color="red", ...)

Answers and counts are among those that the clipbert-tiny preset can give.
"""

import itertools
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from videos import write_video

COLORS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220)}
SHAPES = ("square", "circle", "triangle")
NUMBERS = ("one", "two", "three")
# Pixels of each frame's step, down and to the right.
MOTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
WIDTH, HEIGHT, RADIUS = 64, 48, 6
STEP_PX, NUM_FRAMES, FPS = 1, 15, 10
BACKGROUND = 200
NUM_OPTIONS = 5


@dataclass(frozen=True)
class Scene:
    """What one video shows, and the picture of the same number with it."""

    name: str
    shape: str
    color: str
    count: int  # 1 to 3
    motion: str

    @property
    def subject(self) -> str:
        plural = "s" if self.count > 1 else ""
        return f"{NUMBERS[self.count - 1]} {self.color} {self.shape}{plural}"

    @property
    def caption(self) -> str:
        return f"{self.subject} moving {self.motion}"

    @property
    def picture(self) -> str:
        return f"COCO_val2014_{int(self.name.removeprefix('video')):012d}"


@dataclass(frozen=True)
class Corpus:
    """Where a corpus lies: `videos` and `images` hold media, `files` an annotation file a kind."""

    videos: Path
    images: Path
    scenes: tuple[Scene, ...]
    files: dict[str, Path]
    answers: Path  # the ans2label file of the open-ended questions


def write_corpus(folder: Path, *, num_videos: int = 50, seed: int = 0) -> Corpus:
    """Write videos, pictures and every annotation file below a folder."""
    generator = random.Random(seed)  # noqa: S311 (a corpus, not a secret)
    combinations = list(itertools.product(SHAPES, COLORS, (1, 2, 3), MOTIONS))
    generator.shuffle(combinations)
    scenes = tuple(
        Scene(f"video{number:02d}", *combinations[number % len(combinations)])
        for number in range(num_videos)
    )
    videos, images = folder / "videos", folder / "images"
    videos.mkdir(parents=True)
    images.mkdir()
    for scene in scenes:
        frames = [paint(scene, number) for number in range(NUM_FRAMES)]
        write_video(videos / f"{scene.name}.mp4", frames, fps=FPS, codec="mpeg4")
        Image.fromarray(frames[0]).save(images / f"{scene.picture}.jpg", quality=95)
    files = {
        kind: write_lines(folder / f"{kind}.jsonl", lines(scenes, generator))
        for kind, lines in KINDS.items()
    }
    answers = folder / "ans2label.json"
    labels = ("yes", "no", *COLORS, *NUMBERS)
    answers.write_text(json.dumps({answer: label for label, answer in enumerate(labels)}))
    return Corpus(videos, images, scenes, files, answers)


def write_lines(path: Path, lines: Iterable[dict]) -> Path:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def paint(scene: Scene, frame: int) -> np.ndarray:
    """Draw one frame of a scene, RGB uint8 (HEIGHT, WIDTH, 3)."""
    pixels = np.full((HEIGHT, WIDTH, 3), BACKGROUND, dtype=np.uint8)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    down, right = MOTIONS[scene.motion]
    steps = STEP_PX * (frame - NUM_FRAMES // 2)
    for index in range(scene.count):
        centre_x = WIDTH * (index + 1) // (scene.count + 1) + right * steps
        y, x = rows - (HEIGHT // 2 + down * steps), columns - centre_x
        if scene.shape == "square":
            inside = np.maximum(abs(x), abs(y)) <= RADIUS
        elif scene.shape == "circle":
            inside = x**2 + y**2 <= RADIUS**2
        else:
            inside = (abs(y) <= RADIUS) & (2 * abs(x) <= y + RADIUS)
        pixels[inside] = COLORS[scene.color]
    return pixels


def _retrieval(scenes: tuple[Scene, ...], generator: random.Random) -> Iterable[dict]:
    for number, scene in enumerate(scenes):
        other = f"there are {scene.subject} going {scene.motion}"
        for caption in (scene.caption, other):
            yield {"caption": caption, "clip_name": scene.name, "sen_id": number}


def _msrvtt_mc(scenes: tuple[Scene, ...], generator: random.Random) -> Iterable[dict]:
    captions = [scene.caption for scene in scenes]
    for number, scene in enumerate(scenes):
        options, answer = _options(scene.caption, captions, generator)
        yield {
            "qid": number,
            "clip_name": scene.name,
            "options": options,
            "answer": answer,
        }


def _msrvtt_qa(scenes: tuple[Scene, ...], generator: random.Random) -> Iterable[dict]:
    for scene in scenes:
        yield {
            "video_id": scene.name,
            "question": f"what color is the {scene.shape}?",
            "answer": scene.color,
            "answer_type": "what",
        }
        yield {
            "video_id": scene.name,
            "question": "how many things are moving?",
            "answer": NUMBERS[scene.count - 1],
            "answer_type": "how",
        }


def _tgif_frameqa(scenes: tuple[Scene, ...], generator: random.Random) -> Iterable[dict]:
    for scene in scenes:
        asked = generator.choice(["color", "number"])
        answer = scene.color if asked == "color" else NUMBERS[scene.count - 1]
        yield {
            "gif_name": scene.name,
            "question": f"what is the {asked} of things ?",
            "answer": answer,
            "answer_type": asked,
        }


def _tgif_action(scenes: tuple[Scene, ...], generator: random.Random) -> Iterable[dict]:
    for scene in scenes:
        options = [*(f"move {motion}" for motion in MOTIONS), "stand still"]
        generator.shuffle(options)
        yield {
            "gif_name": scene.name,
            "question": f"what does the {scene.shape} do ?",
            "options": options,
            "answer": options.index(f"move {scene.motion}"),
        }


def _tgif_transition(scenes: tuple[Scene, ...], generator: random.Random) -> Iterable[dict]:
    subjects = [scene.subject for scene in scenes]
    for scene in scenes:
        options, answer = _options(scene.subject, subjects, generator)
        yield {
            "gif_name": scene.name,
            "question": f"what goes {scene.motion} after it stood ?",
            "options": options,
            "answer": answer,
        }


def _tgif_count(scenes: tuple[Scene, ...], generator: random.Random) -> Iterable[dict]:
    for scene in scenes:
        yield {
            "gif_name": scene.name,
            "question": f"how many {scene.shape}s move {scene.motion} ?",
            "answer": scene.count,
        }


def _vqa(scenes: tuple[Scene, ...], generator: random.Random) -> Iterable[dict]:
    for number, scene in enumerate(scenes):
        others = [color for color in COLORS if color != scene.color]
        yield {
            "question": "What color is it?",
            "image_id": scene.picture,
            "question_id": number,
            "labels": {scene.color: 1.0, generator.choice(others): 0.3},
            "answer_type": "other",
        }


def _pretraining(scenes: tuple[Scene, ...], generator: random.Random) -> Iterable[dict]:
    for scene in scenes:
        yield {"caption": scene.subject, "coco_id": scene.picture}


def _options(right: str, texts: list[str], generator: random.Random) -> tuple[list[str], int]:
    """Shuffle the right text and four wrong ones; give them and the place of the right one."""
    wrong = sorted(set(texts) - {right})
    options = [right, *generator.sample(wrong, NUM_OPTIONS - 1)]
    generator.shuffle(options)
    return options, options.index(right)


KINDS: dict[str, Callable[[tuple[Scene, ...], random.Random], Iterable[dict]]] = {
    "retrieval": _retrieval,
    "msrvtt_mc": _msrvtt_mc,
    "msrvtt_qa": _msrvtt_qa,
    "tgif_frameqa": _tgif_frameqa,
    "tgif_action": _tgif_action,
    "tgif_transition": _tgif_transition,
    "tgif_count": _tgif_count,
    "vqa": _vqa,
    "pretraining": _pretraining,
}
