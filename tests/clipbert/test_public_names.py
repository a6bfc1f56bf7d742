import subprocess
import sys

import clipbert


def test_every_public_name_can_be_imported():
    missing = [name for name in clipbert.__all__ if getattr(clipbert, name, None) is None]

    assert missing == []
    assert set(clipbert.__all__) <= set(dir(clipbert))


def test_importing_clipbert_loads_nothing_heavy():
    code = "import sys, clipbert; assert not {'torch', 'av', 'numpy'} & set(sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True)
