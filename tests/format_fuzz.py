"""Flip bits in files and read them, in a process that may die of it: see test_format_fuzz.py.

    python -m format_fuzz FOLDER NUM_MUTATIONS

prints the name and the seed of each file before it is read; whatever is not a VideoError ends it.
"""

import random
import resource
import signal
import sys
from pathlib import Path

from clipbert.errors import VideoError
from clipbert.video.decode import decode_frames, probe_video

MEMORY_BYTES = 4 << 30
SECONDS = 20.0


def mutated(content: bytes, seed: int) -> bytes:
    """Change a few bytes, more of them near the beginning, or cut the file."""
    generator = random.Random(seed)  # noqa: S311 (damage, not a secret)
    data = bytearray(content)
    for _ in range(generator.choice([1, 4, 16, 64])):
        reach = generator.choice([64, 512, len(data)])
        # The first bytes say what it is; without them nothing is read at all.
        place = generator.randrange(min(12, len(data) - 1), min(max(reach, 13), len(data)))
        data[place] = generator.choice([0, 255, generator.randrange(256), data[place] ^ 1 << 4])
    if generator.random() < 0.1:
        del data[generator.randrange(len(data)) :]
    return bytes(data)


def read(path: Path) -> None:
    """Read a file as ingestion and embedding do."""
    try:
        probe = probe_video(path)
        decode_frames(path, [0.0, probe.last_frame_seconds / 2], max_side_px=64, num_threads=2)
        decode_frames(path, [probe.last_frame_seconds], max_side_px=64, num_threads=1)
    except VideoError:
        pass


def main() -> None:
    """Read mutations of each file of a folder."""
    folder, num_mutations = Path(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        victim = folder.parent / f"victim{path.suffix}"
        for seed in range(num_mutations):
            sys.stdout.write(f"{path.name} {seed}\n")
            sys.stdout.flush()
            victim.write_bytes(mutated(content, seed) if seed else content)
            signal.setitimer(signal.ITIMER_REAL, SECONDS)  # a hang ends the process
            read(victim)
            signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
