"""Probe a file and make its thumbnails in a process of its own, with limits.

Media come from strangers, and demuxers and decoders are the code they attack. The process has
limits on memory, time, file size and open files, an empty environment and no secrets; whatever it
does, the caller gets a VideoProbe or a VideoError.

    python -m clipbert.video.probe_process PATH [--poster FILE] [--strip FILE]
        [--name NAME] [--partial]

prints one line of JSON: {"probe": {...}}, {"error": {"code": ..., "message": ...}} or, where
the disk has no room for a picture, {"os_error": {"errno": ..., "message": ...}}.
"""

import argparse
import errno
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from clipbert.errors import (
    ClipBertError,
    DecodeFailed,
    FrameDamaged,
    MediaTooLarge,
    ProbeTimeout,
    VideoError,
)
from clipbert.runs.fork_client import ForkClient
from clipbert.video.probed_video import VideoProbe

DEFAULT_TIMEOUT_SECONDS = 120.0
DEFAULT_MEMORY_BYTES = 4 << 30
_MAX_WRITTEN_BYTES = 32 << 20
_MAX_OPEN_FILES = 64
# Several files are probed side by side, and each thread takes address space.
_DECODER_THREADS = 2
_LEAST_BYTES = 16 << 20  # beside what is loaded
_MESSAGE_CHARACTERS = 2000
_WAIT_SECONDS = 1.0
_NICENESS = 5  # where a model computes on the same cores, people wait for that
_LOAD_SECONDS = 60.0  # until the first process has loaded; by itself a second
_MOST_TRIES = 3  # if what it is forked from ends, as by a kernel that is short of memory


def _environment() -> dict[str, str]:
    """Return what Python needs to find this package, and nothing of ours: no keys, no addresses."""
    return {
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "LC_ALL": "C.UTF-8",
        # numpy's matrix library would start a thread for each core and is not used at all.
        "OPENBLAS_NUM_THREADS": "1",
    }


# All that a probe loads but this module: with decoders what reads a still's size, and what numpy
# and Pillow load when they first need it.
_LOADED: Final = (
    "clipbert.video.decode",
    "clipbert.video.thumbnails",
    "clipbert.runs.fork_client",
    "argparse",
    "av.subtitles.stream",
    "numpy.ma",
    *(f"PIL.{name}ImagePlugin" for name in ("Bmp", "Gif", "Jpeg", "Png", "Ppm")),
)
_PROBES: Final = ForkClient(
    _LOADED,
    idle_seconds=60,
    environment=_environment(),
    inherits=False,
)


def probe_in_subprocess(
    path: Path,
    *,
    poster: Path | None = None,
    strip: Path | None = None,
    name: str | None = None,
    strict: bool = True,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    pass_fds: Sequence[int] = (),
    on_wait: Callable[[], object] | None = None,
) -> VideoProbe:
    """Probe a file of unknown origin, as video.probe_video does, without trusting it.

    Args:
        path: the file.
        poster: where to write a picture of the video (JPEG, longer side at most 640 px).
        strip: where to write up to 8 tiles of 160 px width, evenly spaced, side by side (JPEG).
        name: what messages call the file; None for the path's own name.
        strict: as probe_video's.
        timeout_seconds: the process is killed after so long.
        memory_bytes: the address space that it may use.
        pass_fds: descriptors that the process gets too, for a path such as `/proc/self/fd/7`.
        on_wait: called every second meanwhile; what it raises ends the process.

    The process ends with this one, however that ends.

    Returns:
        The probe, without frame_pts.

    Raises:
        ProbeTimeout: the file took too long.
        MediaTooLarge: the file needs too much memory, or is over another limit.
        VideoError: what probe_video raises; DecodeFailed too if the decoder crashes.
        OSError: a full disk has no room for the pictures.
        ClipBertError: the process could not do its work, for no fault of the file.
    """
    arguments = [str(path.absolute())]
    for option, target in (("--poster", poster), ("--strip", strip)):
        if target is not None:
            arguments += [option, str(target.absolute())]
    name = name or path.name
    arguments.append(f"--name={name}")  # in one word: a name may begin as an option does
    if not strict:
        arguments.append("--partial")
    arguments += ["--memory-bytes", str(memory_bytes)]
    arguments += ["--cpu-seconds", str(math.ceil(timeout_seconds * (os.cpu_count() or 1)))]
    for _ in range(_MOST_TRIES):
        with _Probing(arguments, pass_fds) as probing:
            try:
                probing.wait(timeout_seconds, on_wait)
            except TimeoutError as error:
                raise ProbeTimeout(f"{name} took more than {timeout_seconds:.0f} s") from error
            if not probing.is_orphan:
                return _read_answer(name, *probing.outcome())
    raise ClipBertError(f"the probe of {name} lost the process that it was forked from")


def main(arguments: list[str] | None = None) -> int:
    """Probe the file named on the command line, within its limits; print the answer."""
    parser = argparse.ArgumentParser(prog="python -m clipbert.video.probe_process")
    parser.add_argument("path", type=Path)
    parser.add_argument("--poster", type=Path)
    parser.add_argument("--strip", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--partial", action="store_true")
    parser.add_argument("--memory-bytes", type=int, default=DEFAULT_MEMORY_BYTES)
    parser.add_argument("--cpu-seconds", type=int, default=math.ceil(DEFAULT_TIMEOUT_SECONDS))
    options = parser.parse_args(arguments)
    _limit(memory_bytes=options.memory_bytes, cpu_seconds=options.cpu_seconds)
    if _address_space_bytes() + _LEAST_BYTES > options.memory_bytes:
        sys.exit(f"{options.memory_bytes} bytes of memory are too few to begin with")
    # Under the limits, and where running out of memory is not the file's fault.
    for module in ("clipbert.video.decode", "clipbert.video.thumbnails"):
        import_module(module)
    answer: dict[str, Any]
    try:
        probe = _probe(
            options.path,
            options.poster,
            options.strip,
            name=options.name,
            strict=not options.partial,
        )
        answer = {"probe": probe.to_json()}
    except VideoError as error:
        answer = {"error": {"code": error.code, "message": str(error)}}
    except MemoryError:
        message = f"{options.name or options.path.name} needs more memory than is allowed"
        answer = {"error": {"code": MediaTooLarge.code, "message": message}}
    except OSError as error:  # of the thumbnails, which have no room
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        answer = {"os_error": {"errno": error.errno, "message": error.strerror or str(error)}}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _probe(
    path: Path, poster: Path | None, strip: Path | None, *, name: str | None, strict: bool
) -> VideoProbe:
    from clipbert.video import thumbnails  # noqa: PLC0415 (main loads them under the limits)
    from clipbert.video.decode import probe_video, stream_frames  # noqa: PLC0415

    probe = probe_video(path, name=name, strict=strict)
    if poster is None and strip is None:
        return probe
    looked = stream_frames(
        path,
        thumbnails.strip_instants(probe),
        max_side_px=thumbnails.POSTER_SIDE_PX,
        num_threads=_DECODER_THREADS,
        name=name,
    )
    sound = {instant: found for instant, found in looked if not isinstance(found, FrameDamaged)}
    if not sound:
        raise DecodeFailed(f"no frame of {name or path.name} is sound where one was looked for")
    frames = np.stack(list(sound.values()))  # (N, H, W, 3)
    if poster is not None:
        row = thumbnails.choose_poster(frames, list(sound), probe)
        thumbnails.write_poster(frames[row], poster)
    if strip is not None:
        thumbnails.write_strip(frames, strip)
    return probe


def _address_space_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    return int(pages) * resource.getpagesize()


def _limit(*, memory_bytes: int, cpu_seconds: int) -> None:
    for kind, amount in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, _MAX_WRITTEN_BYTES),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, most = resource.getrlimit(kind)
        allowed = amount if most == resource.RLIM_INFINITY else min(amount, most)
        resource.setrlimit(kind, (allowed, allowed))


class _Probing:
    """A process that probes; killed when it is left.

    It is forked from one that has loaded the decoders, which costs ten times what probing a short
    clip does. That one has decoded nothing, and knows no more of this process than its forks do.
    """

    def __init__(self, arguments: Sequence[str], pass_fds: Sequence[int]) -> None:
        # In memory, so that they never fill a pipe; as a file's, their length has a limit.
        self._answer, self._complaints = os.memfd_create("answer"), os.memfd_create("complaints")
        try:
            self._fork = _PROBES.fork_bare(
                "clipbert.video.probe_process",
                arguments,
                folder=Path("/"),
                files={1: self._answer, 2: self._complaints, **{each: each for each in pass_fds}},
                environment=_environment(),
                niceness=_NICENESS,
            )
        except BaseException:
            os.close(self._answer)
            os.close(self._complaints)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fork.wait(0) is None and self._fork.has_begun:
            with suppress(ProcessLookupError):
                os.killpg(self._fork.pid, signal.SIGKILL)
            self._fork.wait(_WAIT_SECONDS)
        self._close()

    @property
    def is_orphan(self) -> bool:
        """Whether it ended because the process that it was forked from did."""
        return self._fork.is_orphan

    def wait(self, timeout_seconds: float, on_wait: Callable[[], object] | None) -> None:
        """Wait for its end.

        Raises:
            TimeoutError: it did not come in time, after its beginning.
        """
        ends_at = time.monotonic() + _LOAD_SECONDS
        has_begun = False
        while True:
            left = ends_at - time.monotonic()
            if self._fork.wait(max(0.0, min(left, _WAIT_SECONDS))) is not None:
                return
            if self._fork.has_begun and not has_begun:
                has_begun, ends_at = True, time.monotonic() + timeout_seconds
                continue
            if left <= _WAIT_SECONDS and not has_begun:
                raise ClipBertError(f"no process for probing came within {_LOAD_SECONDS:g} s")
            if left <= _WAIT_SECONDS:
                raise TimeoutError
            if on_wait is not None:
                on_wait()

    def outcome(self) -> tuple[int, bytes, bytes]:
        """Return its exit status, its answer, and the end of its complaints."""
        status = self._fork.wait(0)
        assert status is not None  # noqa: S101  (it has been waited for)
        complained = os.fstat(self._complaints).st_size
        start = max(0, complained - _MESSAGE_CHARACTERS)
        return (
            status,
            os.pread(self._answer, os.fstat(self._answer).st_size, 0),
            os.pread(self._complaints, complained - start, start),
        )

    def _close(self) -> None:
        self._fork.close()
        os.close(self._answer)
        os.close(self._complaints)


def _read_answer(name: str, return_code: int, output: bytes, complaints: bytes) -> VideoProbe:
    if return_code == -signal.SIGXCPU:
        raise ProbeTimeout(f"{name} took too much computing time")
    if return_code == -signal.SIGKILL:
        raise MediaTooLarge(f"probing {name} was killed, most likely for its memory")
    if return_code < 0:
        crash = signal.Signals(-return_code).name
        raise DecodeFailed(f"the decoder crashed on {name} ({crash})")
    if return_code != 0 or not output:
        last_words = complaints.decode(errors="replace")[-_MESSAGE_CHARACTERS:].strip()
        raise ClipBertError(f"the probe of {name} failed (exit {return_code}): {last_words}")
    answer = json.loads(output)
    if "os_error" in answer:
        raise OSError(answer["os_error"]["errno"], answer["os_error"]["message"])
    if "error" in answer:
        raise VideoError.from_code(answer["error"]["code"], answer["error"]["message"])
    return VideoProbe.from_json(answer["probe"])


if __name__ == "__main__":
    sys.exit(main())
