"""The code of docs/library.md, run as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def python_blocks(page: Path) -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert blocks
    return "\n".join(blocks)


def test_the_code_of_the_library_page_runs_as_it_stands(tmp_path, mini_folder):
    (tmp_path / "samples").symlink_to(REPOSITORY / "samples")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "clipbert-mini").symlink_to(mini_folder)

    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", python_blocks(REPOSITORY / "docs" / "library.md")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("a parrot")
    assert (tmp_path / "evidence.png").stat().st_size > 10_000
