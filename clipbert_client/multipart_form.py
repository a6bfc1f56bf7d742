"""A form with one file, as it is sent: fields, then the file, read while it is sent."""

import os
from collections.abc import Iterator, Sequence

from clipbert_client.file_to_send import FileToSend

PIECE_BYTES = 1 << 18


class MultipartForm:
    """The body of an upload.

    Args:
        fields: name and text of the other parts.
        filename: what the file is called, without quotes and control characters.
        content: the file.
    """

    def __init__(
        self, fields: Sequence[tuple[str, str]], *, filename: str, content: FileToSend
    ) -> None:
        boundary = os.urandom(16).hex()
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._content = content
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
            for name, text in fields
        )
        # A quoted string: a backslash would escape what follows it.
        name = filename.replace("\\", "\\\\")
        head += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        self._head, self._tail = head.encode(), f"\r\n--{boundary}--\r\n".encode()

    @property
    def size_bytes(self) -> int:
        return len(self._head) + self._content.size_bytes + len(self._tail)

    def pieces(self) -> Iterator[bytes]:
        """Read the form piece by piece.

        Raises:
            OSError: the file cannot be read to its end.
        """
        yield self._head
        while piece := self._content.read(PIECE_BYTES):
            yield piece
        yield self._tail
