"""Answers of JSON lines, of any number: written to disk first, then sent at the client's pace.

So neither a transaction nor a connection to the database is held for a client that reads slowly,
and whatever goes wrong with the data is an error answer and not half a file.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, Final

from starlette.responses import StreamingResponse

from api.dependencies import Services

NDJSON: Final = "application/x-ndjson"

_MEMORY_BYTES: Final = 2**20
_PIECE_BYTES: Final = 256 * 1024


def lines_response(
    services: Services, lines: Iterable[Mapping[str, Any]], *, filename: str
) -> StreamingResponse:
    """Write lines to a temporary file and answer with it. Blocks while the lines are read.

    Args:
        services: the process's.
        lines: each becomes one line.
        filename: what a browser calls the download.
    """
    file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES, dir=str(services.spool_folder))  # noqa: SIM115
    try:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        size_bytes = file.tell()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    headers = {
        "Content-Disposition": f'attachment; filename="{filename}"',
        "Content-Length": str(size_bytes),
        "Cache-Control": "private, no-cache",
    }
    return StreamingResponse(_pieces(file), headers=headers, media_type=NDJSON)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
