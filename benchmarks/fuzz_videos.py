"""Is any frame of any video wrong? Generated videos over containers, codecs, clocks and shapes.

    python benchmarks/fuzz_videos.py [--videos 500] [--seed 0] [--keep FOLDER]

Each frame carries its number as ten cells and four coloured corners. When each is shown is known
from how the file was made, never from FFmpeg. Every clip of several plans and some instants out of
order are decoded and their numbers compared; size, duration and corners too. The same seed makes
the same videos. --keep copies those that went wrong.
"""

import argparse
import json
import random
import re
import shutil
import struct
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import av.error
import numpy as np
from av.stream import Disposition

from clipbert.errors import VideoError
from clipbert.inference.clips import decode_clips
from clipbert.sampling.plan import SamplingPlan
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.decode import decode_frames, probe_video

PROJECT = Path(__file__).resolve().parent.parent
OUT = PROJECT / "benchmarks" / "out" / "fuzz_videos.json"
NUM_BITS = 10
CORNERS = ((224, 32, 32), (32, 192, 32), (32, 32, 224), (224, 224, 32))  # from top left, by rows
HOUR = 3600.0
SLACK_SECONDS = 0.0021  # two ticks of the coarsest clock, a millisecond, and what rounding adds
PICTURE_SLACK = 60  # of 255, for corners after a lossy codec of a tiny picture

RATES = (Fraction(10), Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(50))
PLANS = (
    SamplingPlan("segments", num_clips=5, frames_per_clip=1),
    SamplingPlan("segments", num_clips=3, frames_per_clip=2, clip_seconds=0.5),
    SamplingPlan("keyframes", num_clips=4, frames_per_clip=1),
)


@dataclass(frozen=True)
class Form:
    """A container with a codec, and what may be varied in it.

    Attributes:
        ending: of the file.
        codec: PyAV's encoder.
        clocks: besides a constant rate.
        b_frames: whether the encoder makes them.
        has_sar: the container or the codec keeps the shape of pixels.
        has_turn: it can ask to be turned.
        pixel_formats: that the encoder takes.
        muxer: if it does not follow from the ending.
        rates: that the codec allows.
        hdr: transfer function of a bright screen, PQ or HLG.
        has_alpha: the corners are transparent, with their colours hidden in them.
    """

    ending: str
    codec: str
    clocks: tuple[str, ...] = ()
    b_frames: bool = False
    has_sar: bool = False
    has_turn: bool = False
    pixel_formats: tuple[str, ...] = ("yuv420p",)
    muxer: str | None = None
    rates: tuple[Fraction, ...] = RATES
    hdr: str | None = None
    has_alpha: bool = False


_SD = (Fraction(25), Fraction(30000, 1001))
_WHOLE = (Fraction(10), Fraction(20), Fraction(25), Fraction(50))
_STREAMED = ("joined", "gap", "late stamp", "early stamp", "wrapped")
_VARIABLE = ("variable", "held")
FORMS = (
    Form("mp4", "libx264", _VARIABLE, b_frames=True, has_sar=True, has_turn=True),
    Form("mp4", "libx264", (), has_sar=True, has_turn=True, pixel_formats=("yuv420p10le",)),
    Form("mp4", "mpeg4", (), b_frames=True, has_turn=True),
    Form("mp4", "libvpx-vp9", _VARIABLE),
    Form("mp4", "libx265", (), has_sar=True, has_turn=True),
    Form("mov", "libx264", _VARIABLE, b_frames=True, has_sar=True, has_turn=True),
    Form("mov", "mjpeg", (), pixel_formats=("yuvj420p",)),
    Form("mov", "prores_ks", (), pixel_formats=("yuv422p10le",)),
    Form("mkv", "libx264", _VARIABLE, b_frames=True, has_sar=True),
    Form("mkv", "mpeg2video", (), b_frames=True, rates=_SD),
    Form("mkv", "ffv1", _VARIABLE, pixel_formats=("yuv420p", "yuv444p", "bgr0")),
    Form("webm", "libvpx", _VARIABLE),
    Form("webm", "libvpx-vp9", _VARIABLE),
    Form("avi", "mpeg4", (), b_frames=True),
    Form("avi", "mjpeg", (), pixel_formats=("yuvj420p",)),
    Form("avi", "huffyuv", (), pixel_formats=("yuv422p",)),
    Form("avi", "msmpeg4", ()),
    Form("ts", "libx264", _STREAMED, b_frames=True, has_sar=True),
    Form("ts", "mpeg2video", _STREAMED, b_frames=True, rates=_SD),
    Form("ts", "libx265", ("joined", "gap"), has_sar=True),
    Form("mpg", "mpeg2video", ("joined", "gap"), b_frames=True, rates=_SD, muxer="vob"),
    Form("mpg", "mpeg1video", ("joined", "gap"), b_frames=True, rates=_SD, muxer="mpeg"),
    Form("vob", "libx264", ("joined", "gap"), b_frames=True, muxer="vob"),
    Form("flv", "flv", ()),
    Form("flv", "libx264", _VARIABLE, b_frames=True),
    Form("wmv", "wmv2", (), muxer="asf"),
    Form("wmv", "msmpeg4", (), muxer="asf"),
    Form("mxf", "mpeg2video", (), b_frames=True, rates=_SD),
    Form("3gp", "mpeg4", (), has_turn=True, muxer="3gp"),
    Form("ogv", "libvpx", ("joined",), rates=_SD, muxer="ogg"),
    Form("gif", "gif", (), pixel_formats=("rgb8",), rates=_WHOLE),
    Form("apng", "apng", (), pixel_formats=("rgb24",), muxer="apng", rates=_WHOLE),
    Form("apng", "apng", (), pixel_formats=("rgba",), muxer="apng", rates=_WHOLE, has_alpha=True),
    Form("mp4", "libx265", (), has_turn=True, pixel_formats=("yuv444p10le",), hdr="pq"),
    Form("mkv", "libx265", (), has_sar=True, pixel_formats=("yuv420p10le",), hdr="hlg"),
    Form("mov", "libx264", _VARIABLE, pixel_formats=("yuv422p10le",), hdr="hlg"),
    Form("mov", "png", (), pixel_formats=("rgba",), has_alpha=True),
    Form("mov", "qtrle", (), pixel_formats=("argb",), has_alpha=True),
    Form("mov", "prores_ks", (), pixel_formats=("yuva444p10le",), has_alpha=True),
    Form("webm", "libvpx-vp9", (), pixel_formats=("yuva420p",), has_alpha=True),
)
_PACKED_ENDINGS = ("mpg", "vob")
_MPEG_ENDINGS = ("ts", *_PACKED_ENDINGS)
GROUND = (255, 255, 255)  # what shows through, as the README says


@dataclass(frozen=True)
class Case:
    """One video to make."""

    number: int
    form: Form
    clock: str
    rate: Fraction
    num_frames: int
    size: tuple[int, int]
    sar: Fraction
    turn: int
    gop: int
    b_frames: int
    open_gop: bool
    pixel_format: str
    preview: bool
    sound: bool
    noisy: bool


@dataclass(frozen=True)
class Truth:
    """What is right: when each numbered frame begins, counted from the first, and the whole."""

    starts: list[float]
    numbers: list[int]
    duration: float
    duration_slack: float
    aspect: float
    corners: tuple[tuple[int, int, int], ...] = CORNERS
    holes: list[tuple[float, float]] = field(default_factory=list)

    def on_screen(self, instant: float) -> set[int]:
        """Return the numbers that may be on screen: two at a boundary, as clocks round."""
        found = set()
        for at in (instant - SLACK_SECONDS, instant, instant + SLACK_SECONDS):
            row = bisect_right(self.starts, max(at, 0.0)) - 1
            found.add(self.numbers[max(row, 0)])
        return found


@dataclass(frozen=True)
class Fault:
    """What was wrong with a video."""

    number: int
    what: str
    detail: str
    case: dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="make and check the video of this number alone")
    parser.add_argument("--keep", type=Path, help="where to copy videos that went wrong")
    arguments = parser.parse_args()
    begun = time.monotonic()
    faults: list[Fault] = []
    made: Counter[str] = Counter()
    not_made: Counter[str] = Counter()
    num_frames = 0
    with tempfile.TemporaryDirectory(prefix="clipbert-fuzz-") as folder:
        for number in range(arguments.videos):
            if arguments.only not in (None, number):
                continue
            case = draw_case(number, random.Random(f"{arguments.seed} {number}"))
            path = Path(folder) / f"{number}.{case.form.ending}"
            label = f"{case.form.ending} {case.form.codec}, {case.clock}"
            try:
                truth = write_case(case, path)
            except (av.error.FFmpegError, ValueError) as error:
                not_made[f"{label}: {error}"] += 1
                continue
            made[label] += 1
            found, looked = check(case, path, truth)
            num_frames += looked
            for fault in found:
                faults.append(fault)
                print(f"{number} {label}: {fault.what}: {fault.detail}", flush=True)
            if found and arguments.keep:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, arguments.keep)
            path.unlink()
    row = {
        "seed": arguments.seed,
        "videos": sum(made.values()),
        "forms": len({label.split(",")[0] for label in made}),
        "clocks": dict(Counter(label.split(", ")[1] for label in made.elements())),
        "frames_compared": num_frames,
        "faults": dict(Counter(fault.what for fault in faults)),
        "videos_with_faults": len({fault.number for fault in faults}),
        "not_made": dict(not_made),
        "seconds": round(time.monotonic() - begun),
    }
    print(json.dumps(row, indent=2))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(row | {"all": [asdict(f) for f in faults]}, indent=2) + "\n")
    sys.exit(bool(faults))


def draw_case(number: int, draw: random.Random) -> Case:
    form = FORMS[number % len(FORMS)]
    clock = draw.choice((*form.clocks, *form.clocks, "constant"))
    rate = draw.choice(form.rates)
    b_frames = draw.choice((0, 2, 3)) if form.b_frames else 0
    if clock in ("late stamp", "early stamp"):
        b_frames = 0
    return Case(
        number=number,
        form=form,
        clock=clock,
        rate=rate,
        num_frames=draw.randrange(40, 140),
        size=draw.choice(((160, 96), (176, 144), (320, 180), (96, 160))),
        sar=draw.choice((Fraction(1), Fraction(64, 45), Fraction(16, 15), Fraction(8, 9)))
        if form.has_sar
        else Fraction(1),
        turn=draw.choice((0, 0, 90, 180, 270)) if form.has_turn else 0,
        gop=draw.choice((1, 8, 12, 30, 250)),
        b_frames=b_frames,
        open_gop=draw.random() < 0.4,
        pixel_format=draw.choice(form.pixel_formats),
        preview=form.ending in ("mkv", "mp4") and draw.random() < 0.25,
        sound=form.ending in ("mp4", "mov", "mkv", "ts", "mpg", "vob") and draw.random() < 0.3,
        noisy=draw.random() < 0.4,
    )


def write_case(case: Case, path: Path) -> Truth:
    """Make the video, and say what is right."""
    writers: dict[str, Callable[[Case, Path], Truth]] = {
        "joined": _write_joined,
        "gap": _write_gap,
        "late stamp": _write_damaged_stamp,
        "early stamp": _write_damaged_stamp,
        "wrapped": _write_wrapped,
    }
    return writers.get(case.clock, _write_plain)(case, path)


def _write_plain(case: Case, path: Path) -> Truth:
    ticks = _ticks(case)
    time_base = Fraction(1, 1000) if case.clock in ("variable", "held") else 1 / case.rate
    _encode(case, path, range(case.num_frames), ticks, time_base)
    if case.turn:
        _turn(path, case.turn)
    starts = [float((tick - ticks[0]) * time_base) for tick in ticks]
    last = max(after - before for before, after in pairwise(starts))
    return _truth(case, starts, list(range(case.num_frames)), last=last)


def _ticks(case: Case) -> list[int]:
    draw = random.Random(case.number)
    if case.clock not in ("variable", "held"):
        return list(range(case.num_frames))
    ticks = [0]
    for number in range(1, case.num_frames):
        held = case.clock == "held" and number % 25 == 0
        ticks.append(ticks[-1] + (draw.randrange(2000, 6000) if held else draw.randrange(20, 120)))
    return ticks


def _write_joined(case: Case, path: Path) -> Truth:
    """String two recordings together, byte by byte; each has a clock of its own."""
    half = case.num_frames // 2
    parts = (range(half), range(half, case.num_frames))
    pieces = []
    for numbers in parts:
        piece = path.with_suffix(f".part{path.suffix}")
        _encode(case, piece, numbers, list(range(len(numbers))), 1 / case.rate)
        pieces.append(piece.read_bytes())
        piece.unlink()
    path.write_bytes(b"".join(pieces))
    starts = [float(number / case.rate) for number in range(case.num_frames)]
    # How long the last frame before the seam lasts nobody says.
    return replace(
        _truth(case, starts, list(range(case.num_frames)), last=float(1 / case.rate)),
        duration_slack=3 / float(case.rate) + 0.1,
    )


def _write_gap(case: Case, path: Path) -> Truth:
    """Let the clock jump by an hour in the middle: the recorder was off."""
    half = case.num_frames // 2
    jump = round(HOUR * case.rate)
    ticks = [number + (jump if number >= half else 0) for number in range(case.num_frames)]
    if case.form.ending in _PACKED_ENDINGS:
        # Frames share packets, and the time of some is not stated: the second half begins a new.
        _encode(case, path, range(half), ticks[:half], 1 / case.rate)
        first = path.read_bytes()
        options = {"output_ts_offset": str(float(ticks[half] / case.rate))}
        rest = list(range(case.num_frames - half))
        numbers = range(half, case.num_frames)
        _encode(case, path, numbers, rest, 1 / case.rate, options=options)
        second = path.read_bytes()
        path.write_bytes(first + second)
        # How long before its first frame a clock begins is the muxer's choice.
        later = Fraction(_first_pts(second) - _first_pts(first), 90_000)
        starts = [float(number / case.rate) for number in range(half)]
        starts += [float(later + tick / case.rate) for tick in rest]
    else:
        _encode(case, path, range(case.num_frames), ticks, 1 / case.rate)
        starts = [float(tick / case.rate) for tick in ticks]
    truth = _truth(case, starts, list(range(case.num_frames)), last=float(1 / case.rate))
    return replace(truth, holes=[(starts[half - 1] + float(1 / case.rate), starts[half])])


def _first_pts(data: bytes) -> int:
    """Read the PTS of the first PES packet of video, whose frame is shown first."""
    found = re.search(rb"\x00\x00\x01[\xe0-\xef]", data)
    assert found is not None  # noqa: S101 (just written)
    place = found.end() + 2
    while data[place] == 0xFF:  # stuffing of MPEG-1
        place += 1
    if data[place] >> 6 == 1:  # a buffer's size, in MPEG-1
        place += 2
    if data[place] >> 6 == 2:  # MPEG-2 has flags and a length first
        place += 3
    first, middle, last = struct.unpack(">BHH", data[place : place + 5])
    return (first >> 1 & 7) << 30 | middle >> 1 << 15 | last >> 1


def _write_damaged_stamp(case: Case, path: Path) -> Truth:
    case = replace(case, sound=False)
    _encode(case, path, range(case.num_frames), list(range(case.num_frames)), 1 / case.rate)
    draw = random.Random(case.number)
    frame = draw.randrange(case.num_frames // 4, 3 * case.num_frames // 4)
    sign = 1 if case.clock == "late stamp" else -1
    seconds = sign * draw.choice((1.3, 7.0, 600.0, 10 * HOUR))
    _damage_ts_time(path, frame=frame, seconds=seconds)
    starts = [float(number / case.rate) for number in range(case.num_frames)]
    return _truth(case, starts, list(range(case.num_frames)), last=float(1 / case.rate))


def _write_wrapped(case: Case, path: Path) -> Truth:
    """Begin so shortly before 2^33 ticks of 90 kHz that the clock starts again in the middle."""
    seconds = case.num_frames / case.rate
    offset = float(Fraction(2**33, 90_000) - seconds / 2) - 1.4  # the muxer adds 1.4 s
    options = {"output_ts_offset": str(offset)}
    ticks = list(range(case.num_frames))
    _encode(case, path, range(case.num_frames), ticks, 1 / case.rate, options=options)
    starts = [float(number / case.rate) for number in ticks]
    return _truth(case, starts, ticks, last=float(1 / case.rate))


def _truth(case: Case, starts: list[float], numbers: list[int], *, last: float) -> Truth:
    width, height = case.size
    aspect = width / height * float(case.sar)
    if case.turn in (90, 270):
        aspect = 1 / aspect
    return Truth(
        starts=starts,
        numbers=numbers,
        duration=starts[-1] + last,
        duration_slack=max(last, 2 / float(case.rate)) + 0.05,
        aspect=aspect,
        corners=(GROUND,) * 4 if case.form.has_alpha else CORNERS,
    )


def _encode(
    case: Case,
    path: Path,
    numbers: Sequence[int],
    ticks: Sequence[int],
    time_base: Fraction,
    *,
    options: dict[str, str] | None = None,
) -> None:
    form = case.form
    width, height = case.size
    with av.open(str(path), "w", format=form.muxer, options=options or {}) as container:
        preview = _add_preview(container) if case.preview else None
        stream = container.add_stream(form.codec, rate=case.rate, options=_options(case))
        stream.width, stream.height, stream.pix_fmt = width, height, case.pixel_format
        stream.codec_context.gop_size = case.gop
        stream.codec_context.max_b_frames = case.b_frames
        stream.codec_context.bit_rate = 3_000_000
        if case.sar != 1:
            stream.codec_context.sample_aspect_ratio = case.sar
        if case.form.hdr:
            context = stream.codec_context
            context.color_primaries, context.colorspace, context.color_range = 9, 9, 1  # BT.2020
            context.color_trc = _HDR_NUMBERS[case.form.hdr]
        if case.clock in ("variable", "held"):
            stream.time_base = stream.codec_context.time_base = time_base
        if case.preview:
            stream.disposition = Disposition.default
        codec = "mp2" if form.ending in _MPEG_ENDINGS else "aac"
        sound = container.add_stream(codec, rate=48_000) if case.sound else None
        if preview is not None:
            small = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 90, np.uint8), format="rgb24")
            for index in range(3):
                small.pts = index
                container.mux(preview.encode(small))
        for number, tick in zip(numbers, ticks, strict=True):
            frame = _frame(case, number)
            frame.pts, frame.time_base = tick, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if preview is not None:
            container.mux(preview.encode())
        if sound is not None:
            _add_sound(container, sound, float(len(numbers) / case.rate))


def _options(case: Case) -> dict[str, str]:
    if case.form.codec == "libx264":
        gop = f"open-gop={int(case.open_gop)}:scenecut=0"
        return {"preset": "veryfast", "crf": "16", "x264-params": gop}
    if case.form.codec == "libx265":
        return {"preset": "ultrafast", "crf": "14", "x265-params": "log-level=none"}
    if case.form.codec.startswith("libvpx"):
        return {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
    return {}


def _add_preview(container: av.container.OutputContainer) -> av.video.stream.VideoStream:
    stream = container.add_stream("mpeg4", rate=25)
    stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
    stream.disposition = Disposition(0)
    return stream


def _add_sound(
    container: av.container.OutputContainer, stream: av.audio.stream.AudioStream, seconds: float
) -> None:
    samples = 1024
    layout, form = "stereo", "s16" if stream.codec_context.name == "mp2" else "fltp"
    kind = np.int16 if form == "s16" else np.float32
    shape = (1, 2 * samples) if form == "s16" else (2, samples)
    for index in range(int(seconds * 48_000 / samples)):
        frame = av.AudioFrame.from_ndarray(np.zeros(shape, kind), format=form, layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = 48_000, index * samples, Fraction(1, 48_000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _picture(case: Case, number: int) -> np.ndarray:
    """Paint a frame as it is shown, and turn it back as the file keeps it: (H, W, 3)."""
    width, height = case.size
    shown = (width, height) if case.turn in (0, 180) else (height, width)
    picture = np.full((shown[1], shown[0], 3), 128, dtype=np.uint8)
    w, h = shown
    for corner, colour in enumerate(CORNERS):
        rows = slice(0, h // 4) if corner < 2 else slice(h - h // 4, h)
        columns = slice(0, w // 4) if corner % 2 == 0 else slice(w - w // 4, w)
        picture[rows, columns] = colour
    for bit in range(NUM_BITS):
        columns = slice(bit * w // NUM_BITS, (bit + 1) * w // NUM_BITS)
        picture[3 * h // 8 : 5 * h // 8, columns] = 255 if number >> bit & 1 else 0
    if case.noisy:  # frames of many sizes begin at all places of a container's packets
        random_pixels = np.random.default_rng((case.number, number))
        area = picture[h // 4 : 5 * h // 16, : int(random_pixels.integers(0, w))]
        area[:] = random_pixels.integers(0, 256, area.shape)
    return np.ascontiguousarray(np.rot90(picture, case.turn // 90))


def _frame(case: Case, number: int) -> av.VideoFrame:
    picture = _picture(case, number)
    if case.form.has_alpha:
        opaque = np.full((*picture.shape[:2], 1), 255, dtype=np.uint8)
        height, width = opaque.shape[:2]
        opaque[: height // 4, : width // 4] = opaque[: height // 4, -(width // 4) :] = 0
        opaque[-(height // 4) :, : width // 4] = opaque[-(height // 4) :, -(width // 4) :] = 0
        return av.VideoFrame.from_ndarray(np.concatenate([picture, opaque], axis=2), format="rgba")
    if not case.form.hdr:
        return av.VideoFrame.from_ndarray(picture, format="rgb24")
    yuv = _hdr_yuv(picture, case.form.hdr)  # (H, W, 3) uint16, 16 bits
    return av.VideoFrame.from_ndarray(yuv, format="yuv444p16le").reformat(format=case.pixel_format)


def _hdr_yuv(picture: np.ndarray, transfer: str) -> np.ndarray:
    """Code an SDR picture as a bright screen would show it with white at 203 nits (BT.2100)."""
    signal = picture.astype(np.float64) / 255
    linear = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    wide = linear @ _TO_BT2020.T
    if transfer == "pq":
        power = (wide * 203 / 10_000) ** 0.1593017578125
        coded = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    else:
        # 75 % of the signal is white: the screen's gamma of 1.2 undone, then the camera's curve.
        display = wide * 203 / 1000
        luminance = display @ _LUMA
        scene = display * np.where(luminance > 0, luminance, 1)[..., None] ** (1 / 1.2 - 1)
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        high = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
        coded = np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)
    luma = coded @ _LUMA
    blue, red = (coded[..., 2] - luma) / 1.8814, (coded[..., 0] - luma) / 1.4746
    planes = np.stack([64 + 876 * luma, 512 + 896 * blue, 512 + 896 * red], axis=-1)
    return (planes.round().clip(0, 1023) * 64).astype(np.uint16)


_HDR_NUMBERS = {"pq": 16, "hlg": 18}  # ITU-T H.273
_LUMA = np.array([0.2627, 0.6780, 0.0593])
_TO_BT2020 = np.array(
    [[0.627404, 0.329283, 0.043313], [0.069097, 0.919540, 0.011362], [0.016391, 0.088013, 0.895595]]
)


def _turn(path: Path, clockwise: int) -> None:
    """Ask in an MP4 for the picture to be turned: the matrix of its largest track."""
    a, b, c, d = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[clockwise]
    data = bytearray(path.read_bytes())
    place = -1
    while (place := data.find(b"tkhd", place + 1)) >= 0:
        matrix = place + 4 + 4 + 20 + 16
        if struct.unpack_from(">II", data, matrix + 36) != (0, 0):  # sound has no size
            fixed = [value * 0x10000 for value in (a, b)] + [0]
            fixed += [value * 0x10000 for value in (c, d)] + [0]
            struct.pack_into(">9i", data, matrix, *fixed, 0, 0, 0x40000000)
    path.write_bytes(data)


def _damage_ts_time(path: Path, *, frame: int, seconds: float) -> None:
    """Move the times of one frame of a transport stream."""
    data = bytearray(path.read_bytes())
    place = 0
    for _ in range(frame + 1):
        place = data.index(b"\0\0\1\xe0", place + 1)
    flags, stamp = data[place + 7] >> 6, place + 9
    for index in range(2 if flags == 3 else 1):  # the time of showing, and of decoding
        at = stamp + 5 * index
        high, middle, low = struct.unpack_from(">BHH", data, at)
        ticks = (high >> 1 & 7) << 30 | middle >> 1 << 15 | low >> 1
        ticks = (ticks + round(90_000 * seconds)) % 2**33
        struct.pack_into(
            ">BHH",
            data,
            at,
            high & 0xF1 | ticks >> 30 << 1,
            (ticks >> 15 & 0x7FFF) << 1 | 1,
            (ticks & 0x7FFF) << 1 | 1,
        )
    path.write_bytes(data)


def check(case: Case, path: Path, truth: Truth) -> tuple[list[Fault], int]:
    """Look at a video as the service does.

    Returns:
        What is wrong, and how many frames were compared.
    """
    described = {name: str(value) for name, value in asdict(case).items()}

    def fault(what: str, detail: str) -> Fault:
        return Fault(case.number, what, detail, described)

    faults: list[Fault] = []
    looked = 0
    try:
        probe = probe_video(path)
        if abs(probe.duration_seconds - truth.duration) > truth.duration_slack:
            found = f"{probe.duration_seconds:.3f} s, not {truth.duration:.3f}"
            faults.append(fault("duration", found))
        aspect = probe.width / probe.height
        if abs(aspect / truth.aspect - 1) > 0.04:
            faults.append(fault("shape", f"{probe.width}x{probe.height}, not {truth.aspect:.3f}"))
        for plan in PLANS:
            clips = plan_clips(probe, plan)
            for clip in clips:
                if any(
                    low + 0.5 < i < high - 0.5 for i in clip.instants for low, high in truth.holes
                ):
                    faults.append(fault("looked into a hole", f"{plan.name} {clip.instants}"))
            for clip, frames in zip(clips, decode_clips(path, clips), strict=True):
                looked += len(frames)
                faults += [
                    fault(what, f"{plan.name}: {detail}")
                    for instant, frame in zip(clip.instants, frames, strict=True)
                    for what, detail in _wrong(frame, truth, instant)
                ]
        instants = _instants(case, truth, probe.last_frame_seconds)
        for instant, frame in zip(instants, decode_frames(path, instants), strict=True):
            looked += 1
            faults += [fault(what, f"at random: {d}") for what, d in _wrong(frame, truth, instant)]
    except VideoError as error:
        faults.append(fault("refused", f"{error.code}: {error}"))
    except Exception as error:  # noqa: BLE001  a crash is what is looked for
        faults.append(fault("crash", repr(error)))
    return faults, looked


def _instants(case: Case, truth: Truth, last: float) -> list[float]:
    draw = random.Random(-case.number - 1)
    starts = [start for start in truth.starts if start <= last + SLACK_SECONDS]
    return [
        start + 0.4 * float(1 / case.rate if case.clock not in ("variable", "held") else 0.02)
        for start in draw.sample(starts, 6)
    ]


def _wrong(frame: np.ndarray, truth: Truth, instant: float) -> list[tuple[str, str]]:
    number, expected = _read_number(frame), truth.on_screen(instant)
    if number not in expected:
        return [("wrong frame", f"{number} at {instant:.4f} s, not {sorted(expected)}")]
    height, width = frame.shape[:2]
    for corner, colour in enumerate(truth.corners):
        row = height // 10 if corner < 2 else height - 1 - height // 10
        column = width // 10 if corner % 2 == 0 else width - 1 - width // 10
        found = frame[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3).mean(axis=0)
        if np.abs(found - colour).max() > PICTURE_SLACK:
            return [("colour", f"corner {corner} is {found.round().tolist()}, not {colour}")]
    return []


def _read_number(frame: np.ndarray) -> int:
    height, width = frame.shape[:2]
    band = frame[height * 7 // 16 : height * 9 // 16].mean(axis=(0, 2))  # (W,)
    centres = [int((bit + 0.5) * width / NUM_BITS) for bit in range(NUM_BITS)]
    return sum(1 << bit for bit, x in enumerate(centres) if band[x - 1 : x + 2].mean() > 128)


if __name__ == "__main__":
    main()
