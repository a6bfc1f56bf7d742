"""Write the OpenAPI document: `python -m api.openapi`.

It goes to docs/openapi.json, where a test compares it with the code.
"""

import json
import sys
from pathlib import Path
from typing import Final

from api.main import describe_app

DOCUMENT: Final = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"


def write_document() -> None:
    text = json.dumps(describe_app().openapi(), indent=2, ensure_ascii=False) + "\n"
    DOCUMENT.write_text(text, encoding="utf-8")
    sys.stdout.write(f"wrote {DOCUMENT}\n")


if __name__ == "__main__":
    write_document()
