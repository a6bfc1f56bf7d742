"""A generated corpus: short videos of shapes that come and go over a moving background.

What is asked is to be seen only for a part of each video, so that no single frame tells it: a
video has two events, each of less than a third of its length, with nothing but background before,
between and after them. In an event one to three shapes appear together, move, and vanish.

    is there a red circle?                    yes or no, equally often; where it is "no", another
                                              red shape and another circle are there
    what colour is the square that appears?   of a shape that appears once
    how many shapes appear together?          at most, in any event: 1, 2 or 3, equally often

A caption names all shapes of a video, for retrieval. A picture is one frame of an event of another
video: what a model learns from before it learns from videos, as CLIPBERT does. Everything follows
from the seed and the number.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = {
    "red": (215, 40, 40),
    "green": (40, 170, 60),
    "blue": (45, 75, 220),
    "yellow": (240, 215, 40),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle")

DURATION_SECONDS = 8.0
FRAMES_PER_SECOND = 6
SIDE_PX = 128

_NUM_EVENTS = 2
# The shortest is longer than the distance of 4 clips spread over the video; both together leave
# the middle of the video to the background often enough.
_EVENT_PARTS = (0.26, 0.32)
_SIZES = (0.19, 0.23)  # half the width of a shape, of the frame's side
_SPEED = 0.25  # at most, frame sides a second
_CRF = "20"
_GREY, _GREYS = 118.0, (20.0, 215.0)  # the mean, and the bounds
_BLOBS, _GRAIN = 16.0, 10.0
_DRIFT = (0.05, 0.12)  # frame sides a second


@dataclass(frozen=True)
class Shape:
    """A kind of thing that appears: a colour and a form."""

    colour: str
    form: str

    def __str__(self) -> str:
        return f"{self.colour} {self.form}"


@dataclass(frozen=True)
class Appearance:
    """One shape in one event; places and sizes are parts of the frame's side, 0 to 1."""

    shape: Shape
    start_seconds: float
    end_seconds: float
    x: float
    y: float
    x_per_second: float
    y_per_second: float
    half_width: float


@dataclass(frozen=True)
class Script:
    """What happens in one video.

    Attributes:
        number: of the video; also the seed of its background.
        appearances: by event.
    """

    number: int
    appearances: tuple[Appearance, ...]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """All that appear, each once, by colour and form."""
        return _distinct(self.appearances)

    @property
    def most_together(self) -> int:
        """How many shapes appear together, at most."""
        return max(len(self.visible_at(each.start_seconds)) for each in self.appearances)

    @property
    def caption(self) -> str:
        """Name all shapes."""
        *first, last = (f"a {shape}" for shape in self.shapes)
        return f"{', '.join(first)} and {last} appear"

    def visible_at(self, seconds: float) -> tuple[Appearance, ...]:
        """What is to be seen at an instant."""
        return tuple(
            each for each in self.appearances if each.start_seconds <= seconds < each.end_seconds
        )


@dataclass(frozen=True)
class Picture:
    """One frame of a script.

    Attributes:
        script: of the video that it could be from.
        seconds: the instant, while something is to be seen.
    """

    script: Script
    seconds: float

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """All that are to be seen, by colour and form."""
        return _distinct(self.script.visible_at(self.seconds))


def write_script(number: int, *, seed: int) -> Script:
    """Decide what happens in a video, from its number and the corpus's seed."""
    draw = random.Random(f"{seed}/{number}")
    together = number % 3 + 1
    sizes = [together, *(draw.randint(1, together) for _ in range(_NUM_EVENTS - 1))]
    # Never more than 5 shapes, so that a caption stays short.
    while sum(sizes) > 5:
        place = max(range(1, _NUM_EVENTS), key=lambda event: sizes[event])
        sizes[place] -= 1
    draw.shuffle(sizes)
    shapes = iter(_draw_shapes(sum(sizes), draw))
    appearances = []
    for size, (start, end) in zip(sizes, _draw_spans(draw), strict=True):
        places = _draw_places(size, draw)
        for x, y in places:
            appearances.append(
                Appearance(
                    shape=next(shapes),
                    start_seconds=start,
                    end_seconds=end,
                    x=x,
                    y=y,
                    x_per_second=draw.uniform(-_SPEED, _SPEED) / size,
                    y_per_second=draw.uniform(-_SPEED, _SPEED) / size,
                    half_width=draw.uniform(*_SIZES),
                )
            )
    return Script(number, tuple(appearances))


def take_picture(number: int, *, seed: int) -> Picture:
    """Decide on a picture: an instant of an event of the script with this number."""
    script = write_script(number, seed=seed)
    draw = random.Random(f"{seed}/{number}/picture")
    event = draw.choice(script.appearances)
    return Picture(script, draw.uniform(event.start_seconds, event.end_seconds))


def _distinct(appearances: Sequence[Appearance]) -> tuple[Shape, ...]:
    shapes = {appearance.shape for appearance in appearances}
    return tuple(sorted(shapes, key=lambda shape: (shape.form, shape.colour)))


def _draw_shapes(count: int, draw: random.Random) -> list[Shape]:
    """Draw different shapes, with a colour and a form in common that no shape joins."""
    kinds = [Shape(colour, form) for colour, form in itertools.product(COLOURS, SHAPES)]
    while True:
        shapes = draw.sample(kinds, count)
        if absent_pairs(shapes):
            return shapes


def absent_pairs(shapes: Sequence[Shape]) -> list[Shape]:
    """List shapes that are not there, though their colour and their form are."""
    colours = sorted({shape.colour for shape in shapes})
    forms = sorted({shape.form for shape in shapes})
    pairs = (Shape(colour, form) for colour, form in itertools.product(colours, forms))
    return [pair for pair in pairs if pair not in shapes]


def _draw_spans(draw: random.Random) -> list[tuple[float, float]]:
    """Draw when events begin and end: in order, apart from each other, anywhere in the video."""
    lengths = [draw.uniform(*_EVENT_PARTS) * DURATION_SECONDS for _ in range(_NUM_EVENTS)]
    free = DURATION_SECONDS - sum(lengths)
    cuts = sorted(draw.uniform(0, free) for _ in range(_NUM_EVENTS))
    spans, passed = [], 0.0
    for cut, length in zip(cuts, lengths, strict=True):
        spans.append((cut + passed, cut + passed + length))
        passed += length
    return spans


def _draw_places(count: int, draw: random.Random) -> list[tuple[float, float]]:
    """Draw where the shapes of an event begin: each in a quarter of its own, or anywhere alone."""
    if count == 1:
        return [(draw.uniform(0.25, 0.75), draw.uniform(0.25, 0.75))]
    quarters = draw.sample([(0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)], count)
    return [(x + draw.uniform(-0.04, 0.04), y + draw.uniform(-0.04, 0.04)) for x, y in quarters]


class Background:
    """Grey blobs under grain, drifting: larger than the frame, which moves over it.

    It is grey because the CNN of clipbert-mini hardly sees colours before coloured clutter: over
    one a linear probe of its tokens told the colour of 62 % of shapes, over grey of 90 %.
    """

    def __init__(self, draw: np.random.Generator, side_px: int) -> None:
        self._side_px = side_px
        span = 2 * side_px
        blobs = _enlarge(draw.normal(0.0, _BLOBS, (8, 8, 1)), span)
        grain = _enlarge(draw.normal(0.0, _GRAIN, (span // 4, span // 4, 1)), span)
        self._picture = np.clip(_GREY + blobs + grain, *_GREYS).repeat(3, axis=2)
        angle, speed = draw.uniform(0, 2 * np.pi), side_px * draw.uniform(*_DRIFT)
        self._velocity = speed * np.array([np.cos(angle), np.sin(angle)])

    def at(self, seconds: float) -> NDArray[np.float64]:
        """(side, side, 3), 0 to 255."""
        middle = self._side_px / 2
        corner = middle + self._velocity * (seconds - DURATION_SECONDS / 2)
        down, right = np.clip(corner.round().astype(int), 0, self._side_px)
        return self._picture[down : down + self._side_px, right : right + self._side_px].copy()


def _enlarge(small: NDArray[np.float64], side_px: int) -> NDArray[np.float64]:
    """Bilinear, (n, n, C) -> (side, side, C)."""
    places = np.linspace(0, len(small) - 1, side_px)
    low = np.minimum(places.astype(int), len(small) - 2)
    part = (places - low)[:, None]
    rows = small[low] * (1 - part[..., None]) + small[low + 1] * part[..., None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def render(
    script: Script, seconds: float, background: Background, side_px: int
) -> NDArray[np.uint8]:
    """Draw one frame: (side, side, 3), RGB."""
    frame = background.at(seconds)
    ys, xs = (np.mgrid[0:side_px, 0:side_px] + 0.5) / side_px
    for each in script.visible_at(seconds):
        passed = seconds - each.start_seconds
        half = each.half_width
        x = np.clip(each.x + each.x_per_second * passed, half, 1 - half)
        y = np.clip(each.y + each.y_per_second * passed, half, 1 - half)
        cover = _cover(each.shape.form, xs - x, ys - y, half, side_px)[..., None]
        frame = frame * (1 - cover) + np.array(COLOURS[each.shape.colour]) * cover
    return frame.round().astype(np.uint8)


def _cover(
    form: str, dx: NDArray[np.float64], dy: NDArray[np.float64], half: float, side_px: int
) -> NDArray[np.float64]:
    """How much of each pixel a shape covers, 0 to 1, from its signed distance to the edge."""
    if form == "circle":
        outside = np.hypot(dx, dy) - half
    elif form == "square":
        side = half * 0.89  # about the circle's area
        outside = np.maximum(np.abs(dx), np.abs(dy)) - side
    else:  # upright, its tip above
        outside = np.maximum(dy - half, 0.8944 * np.abs(dx) - 0.4472 * (dy + half))
    return np.clip(0.5 - outside * side_px, 0, 1)


def render_video(
    script: Script, *, seed: int, side_px: int = SIDE_PX
) -> Iterator[NDArray[np.uint8]]:
    """Draw a video's frames in turn."""
    background = Background(np.random.default_rng([seed, script.number]), side_px)
    for index in range(round(DURATION_SECONDS * FRAMES_PER_SECOND)):
        yield render(script, index / FRAMES_PER_SECOND, background, side_px)


def write_picture(picture: Picture, path: Path, *, seed: int, side_px: int = SIDE_PX) -> None:
    """Write a picture as PNG."""
    background = Background(np.random.default_rng([seed, picture.script.number]), side_px)
    pixels = render(picture.script, picture.seconds, background, side_px)
    Image.fromarray(pixels).save(path, format="PNG")


def write_video(script: Script, path: Path, *, seed: int, side_px: int = SIDE_PX) -> None:
    """Write a video as MP4 with H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.width = stream.height = side_px
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": _CRF, "preset": "veryfast", "threads": "1"}
        for picture in render_video(script, seed=seed, side_px=side_px):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
