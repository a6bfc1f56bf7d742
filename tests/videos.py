"""Writers of small test videos. A frame shows its own number, so a decoded frame can tell it."""

import random
import re
import shutil
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from clipbert.errors import FrameDamaged
from clipbert.inference.clips import stream_clips
from clipbert.sampling.plan import Clip
from store.videos.damaged_spans import join_spans

NUM_BITS = 12
STRIPE_PX = 8
FRAME_WIDTH, FRAME_HEIGHT = NUM_BITS * STRIPE_PX, 64


def counting_frame(number: int) -> np.ndarray:
    """Paint a number as 12 black or white vertical stripes, lowest bit left: (64, 96, 3)."""
    bits = [255 * (number >> bit & 1) for bit in range(NUM_BITS)]
    row = np.repeat(np.array(bits, dtype=np.uint8), STRIPE_PX)
    return np.repeat(np.tile(row, (FRAME_HEIGHT, 1))[:, :, None], 3, axis=2)


def frame_number(frame: np.ndarray) -> int:
    """Read counting_frame's number, also from a frame that was resized."""
    means = frame.mean(axis=(0, 2))  # (W,)
    centres = ((np.arange(NUM_BITS) + 0.5) * len(means) / NUM_BITS).astype(int)
    return sum(1 << bit for bit, centre in enumerate(centres) if means[centre] > 127)


@dataclass(frozen=True)
class SoundClips:
    """The clips of a video whose frames are sound, and the joined spans of what is damaged."""

    clips: list[Clip]
    frames: list[np.ndarray]
    damaged_spans: list[list[float]]


def decode_sound_clips(path: Path, clips: Sequence[Clip]) -> SoundClips:
    """Decode as the service does, which goes on after damaged clips."""
    found = list(stream_clips(path, clips))
    sound = [(clip, frames) for clip, frames in found if not isinstance(frames, FrameDamaged)]
    damaged = [frames.span for _, frames in found if isinstance(frames, FrameDamaged)]
    return SoundClips(
        [clip for clip, _ in sound], [frames for _, frames in sound], join_spans(damaged)
    )


def corner_picture(width: int = FRAME_WIDTH, height: int = FRAME_HEIGHT) -> np.ndarray:
    """A picture whose four corners can be told apart."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[: height // 2, : width // 2] = 255
    picture[: height // 2, width // 2 :] = 170
    picture[height // 2 :, : width // 2] = 85
    return picture


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    fps: int | Fraction = 25,
    codec: str = "libx264",
    gop: int = 12,
    b_frames: int = 0,
    timestamps: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    muxer_options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
) -> Path:
    """Encode RGB frames (H, W, 3); timestamps, in time_base, make the rate variable."""
    with av.open(str(path), "w", options=muxer_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.pix_fmt = pixel_format
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        if time_base is not None:
            stream.codec_context.time_base = time_base
        for index, pixels in enumerate(frames):
            if index == 0:
                stream.width, stream.height = pixels.shape[1], pixels.shape[0]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index if timestamps is None else timestamps[index]
            frame.time_base = time_base or 1 / Fraction(fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_counting_video(path: Path, num_frames: int, **settings) -> Path:
    """Write a video whose frame i shows i; settings as write_video's."""
    return write_video(path, (counting_frame(i) for i in range(num_frames)), **settings)


def write_sound(path: Path, *, seconds: float = 1.0, cover: bool = False) -> Path:
    """Write an audio-only file; with cover, it carries a picture, as music files do."""
    rate = 44_100
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=rate, layout="mono")
        picture = None
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 96, 64, "yuvj420p"
            picture.disposition = Disposition.attached_pic
        wave = np.sin(np.arange(int(seconds * rate)) / 20).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate = rate
        if picture is not None:
            image = av.VideoFrame.from_ndarray(counting_frame(5), format="rgb24")
            container.mux(picture.encode(image))
            container.mux(picture.encode())
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return path


def remux(source: Path, target: Path, *, options: dict[str, str] | None = None) -> Path:
    """Copy the video stream into another container, packet by packet."""
    with (
        av.open(str(source)) as reader,
        av.open(str(target), "w", options=options or {}) as writer,
    ):
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(reader.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                writer.mux(packet)
    return target


def remux_at(source: Path, target: Path, ticks: Sequence[int]) -> Path:
    """Copy a video into an AVI, its packets in the chunks of these numbers, the others empty."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        packets = (packet for packet in reader.demux(reader.streams.video[0]) if packet.size)
        for packet, tick in zip(packets, ticks, strict=True):
            packet.stream = stream
            packet.pts = packet.dts = tick
            writer.mux(packet)
    return target


def turn_mp4(source: Path, target: Path, *, clockwise_degrees: int) -> Path:
    """Copy an MP4 with a display matrix that turns it, as a phone held upright writes."""
    turn = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[clockwise_degrees]
    return show_mp4_by(source, target, turn)


def show_mp4_by(source: Path, target: Path, matrix: Sequence[float]) -> Path:
    """Copy an MP4 with a display matrix (a, b, c, d): x is shown at a x + c y, y at b x + d y."""
    data = bytearray(source.read_bytes())
    a, b, c, d = (round(value * 0x10000) for value in matrix)
    # tkhd version 0: 4 type, 4 flags, 20 times and ids, 16 layer to volume, then the matrix.
    place = data.index(b"tkhd") + 4 + 4 + 20 + 16
    struct.pack_into(">9i", data, place, a, b, 0, c, d, 0, 0, 0, 0x40000000)
    target.write_bytes(data)
    return target


def write_titled(path: Path, title: bytes) -> Path:
    """Write a video whose title is these bytes, of no encoding in particular."""
    stand_in = b"T" * len(title)
    with av.open(str(path), "w") as container:
        container.metadata["title"] = stand_in.decode()
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = FRAME_WIDTH, FRAME_HEIGHT, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(counting_frame(1), format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    assert stand_in in data
    path.write_bytes(data.replace(stand_in, title))
    return path


def join(target: Path, *sources: Path) -> Path:
    """String files together, byte by byte."""
    target.write_bytes(b"".join(source.read_bytes() for source in sources))
    return target


def cut(source: Path, target: Path, *, share: float) -> Path:
    """Copy the first part of a file."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def rubbish_in(source: Path, target: Path, number: int) -> Path:
    """Copy a file whose packet of this number, in the order of decoding, is mostly rubbish."""
    with av.open(str(source)) as container:
        places = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    generator = random.Random(number)  # noqa: S311
    data = bytearray(source.read_bytes())
    position, size = places[number]
    for at in range(position + min(6, size // 2), position + size):
        if generator.random() < 0.8:
            data[at] = generator.randrange(256)
    target.write_bytes(data)
    return target


def damage(
    source: Path,
    target: Path,
    *,
    skip: int,
    keep_end: int = 0,
    one_in: int = 50,
    seed: int = 0,
) -> Path:
    """Copy a file with one bit flipped in each so-many-th byte, at random.

    The first skip and the last keep_end bytes stay as they are.
    """
    generator = random.Random(seed)  # noqa: S311 (damage, not a secret)
    data = bytearray(source.read_bytes())
    for position in range(skip, len(data) - keep_end):
        if generator.random() < 1 / one_in:
            data[position] ^= 1 << generator.randrange(8)
    target.write_bytes(data)
    return target


def shift_ts_stamps(
    source: Path, target: Path, seconds: dict[int, float], *, only: str = "both"
) -> Path:
    """Copy a transport stream and move the PTS and DTS of frames, by number in decoding order."""
    data = bytearray(source.read_bytes())
    place = -1
    for number in range(max(seconds) + 1):
        place = data.index(b"\0\0\1\xe0", place + 1)
        if number not in seconds:
            continue
        has_dts = data[place + 7] & 0x40
        fields = {"both": [9, 14], "pts": [9], "dts": [14]}[only]
        for field in fields if has_dts else [9]:
            stamp = place + field
            high, middle, low = struct.unpack_from(">BHH", data, stamp)
            ticks = (high >> 1 & 7) << 30 | middle >> 1 << 15 | low >> 1
            ticks = (ticks + round(90_000 * seconds[number])) % (1 << 33)
            struct.pack_into(
                ">BHH",
                data,
                stamp,
                high & 0xF1 | ticks >> 30 << 1,
                (ticks >> 15 & 0x7FFF) << 1 | 1,
                (ticks & 0x7FFF) << 1 | 1,
            )
    target.write_bytes(data)
    return target


def shift_pes_stamp(source: Path, target: Path, *, stamp: int, seconds: float, fields: str) -> Path:
    """Copy an MPEG-2 program stream (VOB) with one damaged stamp.

    Args:
        source: the file.
        target: the copy.
        stamp: which of those that PES packets of video state, negative from the end.
        seconds: by which it is later, or earlier.
        fields: "pts", "dts" or "pts dts"; a packet may state the first alone.
    """
    data = bytearray(source.read_bytes())
    starts = [found.end() for found in re.finditer(rb"\x00\x00\x01[\xe0-\xef]", data)]
    stated = [start for start in starts if data[start + 2] >> 6 == 2 and data[start + 3] >> 6]
    start = stated[stamp]
    places = {"pts": start + 5} | ({"dts": start + 10} if data[start + 3] >> 6 == 3 else {})
    for field in fields.split():
        if field not in places:
            continue
        place = places[field]
        first, middle, last = struct.unpack(">BHH", data[place : place + 5])
        ticks = (first >> 1 & 7) << 30 | middle >> 1 << 15 | last >> 1
        ticks = (ticks + round(seconds * 90_000)) % (1 << 33)
        parts = (
            first & 0xF0 | ticks >> 29 & 0xE | 1,
            ticks >> 14 & 0xFFFE | 1,
            ticks << 1 & 0xFFFE | 1,
        )
        data[place : place + 5] = struct.pack(">BHH", *parts)
    target.write_bytes(data)
    return target


def claim_duration(source: Path, target: Path, *, hours: int) -> Path:
    """Copy an MP4 whose header claims to be many hours long."""
    shutil.copy(source, target)
    data = bytearray(source.read_bytes())
    header = data.index(b"mvhd")
    timescale = struct.unpack_from(">I", data, header + 16)[0]
    struct.pack_into(">I", data, header + 20, min(hours * 3600 * timescale, 2**32 - 1))
    track = data.index(b"tkhd")
    struct.pack_into(">I", data, track + 24, min(hours * 3600 * timescale, 2**32 - 1))
    media = data.index(b"mdhd")
    media_scale = struct.unpack_from(">I", data, media + 16)[0]
    struct.pack_into(">I", data, media + 20, min(hours * 3600 * media_scale, 2**32 - 1))
    target.write_bytes(data)
    return target
