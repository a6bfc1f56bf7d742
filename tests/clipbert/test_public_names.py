import subprocess
import sys
import tomllib
from pathlib import Path

import clipbert

ROOT = Path(__file__).resolve().parents[2]


def test_every_public_name_can_be_imported():
    missing = [name for name in clipbert.__all__ if getattr(clipbert, name, None) is None]

    assert missing == []
    assert set(clipbert.__all__) <= set(dir(clipbert))


def test_the_list_of_names_is_installed_with_the_package():
    packaging = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    globs = packaging["package-data"]["clipbert"]

    shipped = {path for glob in globs for path in (ROOT / "clipbert").glob(glob)}

    assert ROOT / "clipbert" / "__init__.pyi" in shipped


def test_importing_clipbert_loads_nothing_heavy():
    code = "import sys, clipbert; assert not {'torch', 'av', 'numpy'} & set(sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True)
