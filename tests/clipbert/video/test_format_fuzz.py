"""Damaged files of each demuxer and codec end in an error of ours, never in a crash or a hang.

    pytest tests/clipbert/video/test_format_fuzz.py --fuzz-mutations 1000

for a long run; the mutations are seeded, so a longer run begins with those of a shorter one.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from format_samples import DISGUISES, SAMPLES
from heif_writer import ALPHA, Heif
from odd_frames import cell_frame
from PIL import Image

from clipbert.video.formats import CODECS, CONTAINERS

ROOT = Path(__file__).parents[3]
# Of H.264 and its like more is written than fits in a few frames; each file is of so many frames.
NUM_FRAMES = 4
PARTS = 4


def write_pictures(folder):
    for kind, name in ((b"hvc1", "grid.heic"), (b"av01", "grid.avif")):
        heif = Heif(kind)
        heif.primary = heif.add_grid(cell_frame(5, 128, 96))
        alpha = heif.add_picture(cell_frame(0, 128, 96), ALPHA)
        heif.references.append((b"auxl", alpha, [heif.primary]))
        heif.write(folder / name)
    picture = Image.fromarray(cell_frame(5)).convert("RGBA")
    picture.putalpha(100)
    picture.save(folder / "still.png")
    picture.save(folder / "still.webp")
    picture.convert("RGB").save(folder / "still.jpg", progressive=True)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_damage_ends_in_an_error_of_ours(tmp_path, part, request):
    num_mutations = request.config.getoption("--fuzz-mutations")
    folder = tmp_path / "originals"
    folder.mkdir()
    for number, kind in enumerate([*SAMPLES, *DISGUISES]):
        if number % PARTS == part:
            path = kind.write(tmp_path, NUM_FRAMES)
            path.rename(folder / f"{number:02}-{kind.codec}{path.suffix}")

    if part == 0:
        write_pictures(folder)

    run = subprocess.run(
        [sys.executable, "-m", "format_fuzz", str(folder), str(num_mutations)],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    last = run.stdout.strip().rpartition("\n")[2]
    assert run.returncode == 0, f"ended by {run.returncode} at {last}: {run.stderr[-2000:]}"
    assert len(run.stdout.splitlines()) == len(list(folder.iterdir())) * num_mutations


def test_each_container_and_each_codec_is_among_the_kinds():
    written = {kind.demuxer for kind in SAMPLES}
    decoders = {"libx264": "h264", "libx265": "hevc", "libvpx": "vp8", "libvpx-vp9": "vp9"}
    decoders |= {"libsvtav1": "libdav1d", "prores_ks": "prores"}
    codecs = {decoders.get(kind.codec, kind.codec) for kind in SAMPLES}
    codecs |= {"indeo3", "indeo4", "indeo5", "svq3", "vp6", "vp6a", "vp6f", "wmv3", "vc1"}
    codecs |= {"msmpeg4v1", "rv30", "rv40", "theora"}  # DISGUISES

    # Pictures and Ogg are in test_video.py and test_probe.py; av1 is dav1d's other name.
    assert CONTAINERS.keys() - written == {"ogg", "jpeg_pipe", "png_pipe", "webp_pipe"}
    assert CODECS - codecs == {"av1", "rawvideo", "webp"}
