"""Stamps of PES packets, which belong to the pictures that begin in them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from videos import counting_frame, frame_number, join, shift_pes_stamp, write_video

from clipbert.video.decode import DEFAULT_LIMITS, decode_frames, probe_video
from clipbert.video.mending import UNKNOWN, ClockTraits
from clipbert.video.pes import PesPackets, Pictures
from clipbert.video.pes_clock import restamped
from clipbert.video.timelines import timeline_of

FPS = 25
TICKS = 3600  # of a frame
# Of each a seed with which some start code lies across two packets.
FILMS = {
    "mpeg2_intra": (0, {"codec": "mpeg2video", "gop": 1}),
    "mpeg2": (2, {"codec": "mpeg2video"}),
    "mpeg2_b_frames": (8, {"codec": "mpeg2video", "b_frames": 2}),
    "mpeg1_b_frames": (5, {"codec": "mpeg1video", "b_frames": 2}),
    "h264": (0, {"options": {"preset": "ultrafast"}}),
    "h264_b_frames": (7, {"b_frames": 2}),
    "h264_intra": (0, {"gop": 1}),
}
ENCODERS = {
    "mpeg2_b_frames": ("mpeg2video", {"g": "12", "bf": "2"}),
    "h264": ("libx264", {"preset": "ultrafast", "g": "12", "bf": "0"}),
    "h264_b_frames": ("libx264", {"preset": "ultrafast", "g": "12", "bf": "2"}),
}
SEQUENCE = b"\x00\x00\x01\xb3" + bytes(range(1, 9))
FRAME_STRUCTURE, TOP_FIELD = 3, 1


def noisy_frames(num_frames: int, *, seed: int):
    """Frames whose pictures are of many sizes, so that they begin at all places of a packet."""
    random = np.random.default_rng(seed)
    for number in range(num_frames):
        frame = counting_frame(number).copy()
        width = random.integers(8, 40)
        frame[:16, :width] = random.integers(0, 255, (16, width, 3), dtype=np.uint8)
        yield frame


def check_numbers(path: Path, numbers: list[int]) -> None:
    """Check the number on screen at each frame, all at once, and some of them one by one."""
    instants = [(place + 0.5) / FPS for place in range(len(numbers))]
    assert [frame_number(frame) for frame in decode_frames(path, instants)] == numbers
    for place in range(0, len(numbers), 11):
        assert frame_number(decode_frames(path, [instants[place]])[0]) == numbers[place]


@pytest.mark.parametrize("name", FILMS)
def test_frames_whose_start_codes_lie_across_packets(name, tmp_path):
    seed, settings = FILMS[name]
    frames = noisy_frames(250, seed=seed)
    path = write_video(tmp_path / "v.mpg", frames, fps=Fraction(FPS), **settings)
    # There FFmpeg gives a frame the time of the next, and the test has something to test.
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stated = [packet.pts for packet in container.demux(stream) if packet.size]
    timeline = timeline_of(path, DEFAULT_LIMITS, name="v")
    assert timeline.packet_pts is not None
    assert [UNKNOWN if pts is None else pts for pts in stated] != timeline.packet_pts.tolist()

    probe = probe_video(path)

    assert (probe.num_frames, probe.duration_seconds) == (250, 250 / FPS)
    assert (probe.mended, probe.gaps) == ((), ())
    check_numbers(path, list(range(250)))


@pytest.mark.parametrize("name", ["mpeg2_b_frames", "h264"])
def test_such_files_may_be_joined(name, tmp_path):
    parts = [
        write_video(
            tmp_path / f"{seed}.mpg",
            noisy_frames(60 + seed, seed=seed),
            fps=Fraction(FPS),
            **FILMS[name][1],
        )
        for seed in range(4)
    ]
    path = join(tmp_path / "v.mpg", *parts)

    assert probe_video(path).mended == ("joined_recordings",)
    check_numbers(path, [number for seed in range(4) for number in range(60 + seed)])


@pytest.mark.parametrize("name", ["mpeg2_b_frames", "mpeg1_b_frames", "h264", "h264_b_frames"])
def test_short_recordings_that_state_a_time_or_two_may_be_joined(name, tmp_path):
    settings = {"fps": Fraction(FPS)} | FILMS[name][1]
    parts = [
        write_video(tmp_path / f"{part}.mpg", map(counting_frame, numbers), **settings)
        for part, numbers in enumerate((range(17), range(100, 121), range(200, 213)))
    ]
    path = join(tmp_path / "v.mpg", *parts)

    probe = probe_video(path)

    assert (probe.num_frames, probe.mended, probe.gaps) == (51, ("joined_recordings",), ())
    assert probe.duration_seconds == pytest.approx(51 / FPS, abs=1e-4)
    check_numbers(path, [*range(17), *range(100, 121), *range(200, 213)])


@pytest.mark.parametrize("name", ["mpeg2_b_frames", "mpeg1_b_frames", "h264", "h264_b_frames"])
def test_a_gap_begins_after_the_last_frame_also_where_that_states_no_time(name, tmp_path):
    settings = {"fps": Fraction(FPS)} | FILMS[name][1]
    first = write_video(tmp_path / "1.mpg", map(counting_frame, range(33)), **settings)
    offset = {"output_ts_offset": "600"}
    frames = map(counting_frame, range(100, 128))
    second = write_video(tmp_path / "2.mpg", frames, muxer_options=offset, **settings)
    path = join(tmp_path / "v.mpg", first, second)

    probe = probe_video(path)

    ((start, end),) = probe.gaps
    assert (probe.num_frames, probe.mended) == (61, ("clock_gap",))
    assert start == pytest.approx(33 / FPS, abs=1e-4)
    assert 590 < end < 610
    assert probe.duration_seconds == pytest.approx(end + 28 / FPS, abs=1e-4)
    instants = [(place + 0.5) / FPS for place in range(33)]
    instants += [end + (place + 0.5) / FPS for place in range(28)]
    numbers = [*range(33), *range(100, 128)]
    assert [frame_number(frame) for frame in decode_frames(path, instants)] == numbers


@pytest.mark.parametrize("fields", ["pts", "dts", "pts dts"])
@pytest.mark.parametrize("seconds", [1.3, -1.3, 7.0, -600.0, 36_000.0])
@pytest.mark.parametrize("name", ["mpeg2", "mpeg2_b_frames", "h264", "h264_b_frames"])
def test_one_damaged_stamp_of_a_program_stream(name, seconds, fields, tmp_path):
    """Many frames are reckoned from each: the first, one in the middle, and the last."""
    frames = noisy_frames(100, seed=3)
    whole = write_video(tmp_path / "whole.vob", frames, fps=Fraction(FPS), **FILMS[name][1])
    for stamp in (0, 1, 4, -2, -1):
        path = shift_pes_stamp(
            whole, tmp_path / "v.vob", stamp=stamp, seconds=seconds, fields=fields
        )

        probe = probe_video(path)

        assert (probe.num_frames, probe.gaps) == (100, ())
        assert probe.duration_seconds == pytest.approx(100 / FPS, abs=1e-4)
        instants = [(place + 0.5) / FPS for place in range(100)]
        assert [frame_number(frame) for frame in decode_frames(path, instants)] == list(range(100))


@pytest.mark.parametrize("is_keyframe", [False, True])
def test_a_last_stamp_of_a_new_recording_is_no_damaged_one(is_keyframe):
    """A recording begins with a keyframe, so that no other can be the first after a jump."""
    units = [picture(1 if place in (0, 30) and is_keyframe else 2, 3) for place in range(40)]
    pictures = Pictures("mpeg2video")
    for unit in units:
        pictures.add(memoryview(unit))
    stated = np.array([0, 10, 20, 9000]) * 100
    pes = PesPackets(np.array([0, 400, 800, 1200, 1600]), stated, stated)
    is_key = np.isin(np.arange(40), [0, 30] if is_keyframe else [0])
    traits = ClockTraits(
        ticks_per_second=1000,
        wraps_after=1 << 33,
        states_dts=True,
        states_durations=False,
        is_reordered=True,
        states_all=False,
    )

    clock = restamped(pictures, pes, np.full(40, 100), is_key, traits)

    assert clock is not None
    assert clock.codes == (("clock_gap",) if is_keyframe else ("damaged_timestamps",))
    assert clock.pts[:30].tolist() == [100 * place for place in range(30)]
    begin = 900_000 if is_keyframe else 3000
    assert clock.pts[30:].tolist() == [begin + 100 * place for place in range(10)]


def encoded(codec: str, options: dict[str, str], num_frames: int) -> list[av.Packet]:
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = 96, 64, "yuv420p"
    encoder.framerate, encoder.time_base = Fraction(FPS), Fraction(1, FPS)
    encoder.options = options
    packets = []
    for number in range(num_frames):
        frame = av.VideoFrame.from_ndarray(counting_frame(number), format="rgb24")
        frame.pts = number
        packets += encoder.encode(frame)
    return packets + encoder.encode(None)


def mux(path: Path, codec: str, packets: list[tuple[bytes, int, int, bool]]) -> Path:
    """Write packets of (bytes, pts, dts, is_keyframe), in ticks."""
    with av.open(str(path), "w", format={".ts": "mpegts", ".vob": "vob"}[path.suffix]) as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.time_base = Fraction(1, 90_000)
        for data, pts, dts, is_keyframe in packets:
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 90_000)
            packet.pts, packet.dts, packet.is_keyframe = 90_000 + pts, 90_000 + dts, is_keyframe
            container.mux(packet)
    return path


@pytest.mark.parametrize("num_together", [2, 3])
@pytest.mark.parametrize("name", ["mpeg2_b_frames", "h264", "h264_b_frames"])
def test_frames_of_a_transport_stream_that_share_a_packet(name, num_together, tmp_path):
    codec, options = ENCODERS[name]
    packets = encoded(codec, options, 60)
    together = [packets[row : row + num_together] for row in range(0, 60, num_together)]
    path = mux(
        tmp_path / "v.ts",
        codec,
        [
            (
                b"".join(map(bytes, group)),
                group[0].pts * TICKS,
                group[0].dts * TICKS,
                group[0].is_keyframe,
            )
            for group in together
        ],
    )

    probe = probe_video(path)

    assert (probe.num_frames, probe.duration_seconds) == (60, pytest.approx(60 / FPS, abs=0.15))
    check_numbers(path, list(range(60)))


def pulled_down(data: bytes, *, repeats_field: bool) -> bytes:
    """Turn a progressive MPEG-2 picture into one of a film on television: shown 3 fields or 2."""
    changed = bytearray(data)
    place = changed.find(b"\x00\x00\x01\xb5")
    while place >= 0:
        body = place + 4
        if changed[body] >> 4 == 1:  # of the sequence: not progressive
            changed[body + 1] &= ~0x08
        if changed[body] >> 4 == 8:  # of the picture: top field first, a progressive frame
            changed[body + 3] |= 0x80 | (0x02 if repeats_field else 0)
            changed[body + 4] |= 0x80
        place = changed.find(b"\x00\x00\x01\xb5", body)
    return bytes(changed)


@pytest.mark.parametrize("num_b_frames", [0, 2])
def test_pictures_of_three_fields_and_of_two(num_b_frames, tmp_path):
    packets = encoded("mpeg2video", {"g": "12", "bf": str(num_b_frames)}, 60)
    num_fields = [3 if number % 2 == 0 else 2 for number in range(60)]
    starts = np.concatenate([[0], np.cumsum(num_fields)]) * (TICKS // 2)
    decoded = [-TICKS, *starts.tolist()]
    path = mux(
        tmp_path / "v.vob",
        "mpeg2video",
        [
            (
                pulled_down(bytes(packet), repeats_field=packet.pts % 2 == 0),
                int(starts[packet.pts]),
                decoded[row],
                packet.is_keyframe,
            )
            for row, packet in enumerate(packets)
        ],
    )

    probe = probe_video(path)
    instants = ((starts[:-1] + starts[1:]) / 2 / 90_000).tolist()

    assert (probe.num_frames, probe.duration_seconds) == (60, 150 / 50)
    assert [frame_number(frame) for frame in decode_frames(path, instants)] == list(range(60))


def picture(kind: int, structure: int, *, size: int = 40) -> bytes:
    """A picture of MPEG-2 video: 1 I, 2 P, 3 B."""
    header = b"\x00\x00\x01\x00" + bytes([0, kind << 3, 0xFF, 0xF8])
    extension = b"\x00\x00\x01\xb5" + bytes([0x8F, 0xFF, 0xF0 | structure, 0x80, 0])
    return header + extension + b"\x55" * (size - len(header) - len(extension))


def stamps_of(units: list[bytes], ends: list[int], pts: list[int | None]) -> list[int]:
    """Give stamps to units whose PES packets end at these bytes; one a unit, UNKNOWN is -1."""
    pictures = Pictures("mpeg2video")
    for unit in units:
        pictures.add(memoryview(unit))
    stated = np.array([UNKNOWN if time is None else time for time in pts])
    pes = PesPackets(np.array([0, *ends]), stated, stated)
    line = np.arange(len(units) + 1) * 100
    _, dts = pictures.stated(pes, line)
    return [-1 if time == UNKNOWN else time for time in dts.tolist()]


def test_a_stamp_is_of_the_first_picture_that_begins_in_its_packet():
    units = [picture(1, FRAME_STRUCTURE)] * 4  # from 0, 40, 80 and 120

    assert stamps_of(units, [50, 82, 160], [0, 200, 300]) == [0, -1, 200, 300]
    assert stamps_of(units, [50, 70, 160], [0, None, 200]) == [0, -1, 200, -1]
    # None begins in the second packet: what it states is of no picture.
    assert stamps_of(units, [50, 70, 160], [0, 150, 200]) == [0, -1, 200, -1]


@pytest.mark.parametrize(
    ("stamps", "right"),
    [([0, 200, 300], [0, -1, 200, 300]), ([0, 300, None], [0, -1, -1, 300])],
    ids=["standard", "ffmpeg"],
)
def test_a_header_before_a_picture_counts_as_the_writer_meant_it(stamps, right):
    """The standard goes by the start code of the picture, FFmpeg's muxer by that of the header."""
    with_header = SEQUENCE + picture(1, FRAME_STRUCTURE)
    units = [picture(1, FRAME_STRUCTURE)] * 2 + [with_header] * 2
    # Headers begin at 80 and 132, their pictures at 92 and 144.
    assert stamps_of(units, [84, 140, 184], stamps) == right


def test_a_second_field_takes_no_stamp_from_the_next_frame():
    field_pair = picture(2, TOP_FIELD) + picture(2, TOP_FIELD + 1)
    units = [field_pair] * 3  # fields at 0, 40, 80, 120, 160, 200

    # The second packet begins within the first field, and its stamp is the second field's.
    assert stamps_of(units, [20, 70, 90, 240], [0, 50, 100, 150]) == [0, 100, -1]


def test_picture_types_are_those_of_the_headers():
    pictures = Pictures("mpeg2video")
    for kind in (1, 2, 3, 3, 2):
        pictures.add(memoryview(SEQUENCE + picture(kind, FRAME_STRUCTURE)))
    pictures.add(memoryview(b"\x00\x00\x01\x01 slices of a picture that was cut off"))

    assert pictures.is_b.tolist() == [False, False, True, True, False, False]


def test_a_frame_of_a_mended_file_is_read_from_the_keyframe_before_it(tmp_path):
    """Its stamps lead nowhere, as there are two of each; the places of its packets do."""

    def noise(first):
        random = np.random.default_rng(first)
        for number in range(100):
            frame = random.integers(0, 255, (64, 96, 3), dtype=np.uint8)
            frame[:, :64] = counting_frame(first + number)[:, :64]
            yield frame

    parts = [
        write_video(tmp_path / f"{first}.ts", noise(first), options={"g": "10"}, fps=Fraction(FPS))
        for first in (0, 100)
    ]
    path = join(tmp_path / "v.ts", *parts)
    decode_frames(path, [0.0])  # the timeline is known from now on

    def num_read():
        return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])

    before = num_read()
    decode_frames(path, [199.5 / FPS])
    last = num_read() - before
    decode_frames(path, [0.5 / FPS])
    first = num_read() - before - last

    assert last < first + path.stat().st_size / 3


@pytest.mark.parametrize("packet_bytes", [192, 204])
def test_transport_streams_with_longer_packets(packet_bytes, tmp_path):
    """With a time before each (M2TS of cameras), or with parity after it (broadcast captures)."""
    parts = []
    for first in (0, 100):
        part = write_video(tmp_path / f"{first}.ts", map(counting_frame, range(first, first + 40)))
        data = part.read_bytes()
        packets = [data[start : start + 188] for start in range(0, len(data), 188)]
        extra = bytes(packet_bytes - 188)
        longer = [extra + each if packet_bytes == 192 else each + extra for each in packets]
        part.write_bytes(b"".join(longer))
        parts.append(part)
    path = join(tmp_path / "v.ts", *parts)

    assert probe_video(path).mended == ("joined_recordings",)
    check_numbers(path, [*range(40), *range(100, 140)])
