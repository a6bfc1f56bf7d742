r"""The Content-Disposition of a part of a form: its name and file name, as clients really write it.

filename="a.mp4"  filename=a.mp4         RFC 7578, quoted or not; `\"` in it, browsers' %22
filename*=UTF-8''%C3%BC.mp4              RFC 5987 and 8187; wins over the plain one
filename*0="a"; filename*1*=%20b.mp4     RFC 2231, in pieces
filename="=?utf-8?B?w7wubXA0?="          RFC 2047, as .NET's HttpClient writes it
filename="ü.mp4"                         raw bytes: UTF-8, else what Windows writes
"""

import re
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header
from typing import Final
from urllib.parse import unquote_to_bytes

# name=value; the value is quoted, with escapes, or ends at the next semicolon.
_PARAMETER: Final = re.compile(rb';\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))', re.DOTALL)
_ENCODED_WORDS: Final = re.compile(r"\s*(=\?[\w.-]+\?[bq]\?[^?]*\?=\s*)+", re.IGNORECASE)
_PIECE: Final = re.compile(r"(.+)\*(\d+)(\*?)")
_BROWSERS_ESCAPES: Final = {"%22": '"', "%0D": "\r", "%0A": "\n"}
_MOST_PIECES: Final = 100


@dataclass(frozen=True)
class Disposition:
    """What a part is called; None where it says nothing."""

    name: str | None
    filename: str | None


def read_disposition(header: bytes) -> Disposition:
    """Read the header of one part; what cannot be decoded is shown as it came."""
    found: dict[str, bytes] = {}
    for match in _PARAMETER.finditer(b";" + header.partition(b";")[2]):
        key = match[1].decode("latin-1").lower()
        value = match[3].strip() if match[2] is None else _unescaped(match[2])
        found.setdefault(key, value)  # the first counts, of two that say different things
    return Disposition(_value(found, "name"), _value(found, "filename"))


def _value(found: dict[str, bytes], key: str) -> str | None:
    extended = found.get(f"{key}*")
    if extended is not None:
        decoded = _decode_extended(extended)
        if decoded is not None:
            return decoded
    pieces = _joined(found, key)
    if pieces is not None:
        return pieces
    plain = found.get(key)
    return None if plain is None else _decode_plain(plain)


def _unescaped(quoted: bytes) -> bytes:
    """Take the backslash from quotes and backslashes only: Windows' paths have bare ones."""
    return re.sub(rb'\\(["\\])', rb"\1", quoted)


def _decode_extended(value: bytes) -> str | None:
    """Decode charset'language'percent-encoded; None if it is not of that form."""
    charset, _, rest = value.partition(b"'")
    _, quote, encoded = rest.partition(b"'")
    if not quote:
        return None
    return _decode(unquote_to_bytes(encoded), charset.decode("latin-1"))


def _joined(found: dict[str, bytes], key: str) -> str | None:
    pieces = {}
    for name, value in found.items():
        match = _PIECE.fullmatch(name)
        if match is not None and match[1] == key and len(match[2]) < len(str(_MOST_PIECES)) + 1:
            pieces[int(match[2])] = (bool(match[3]), value)
    if 0 not in pieces:
        return None
    charset, content = "utf-8", b""
    for i in range(len(pieces)):
        if i not in pieces:
            break
        is_encoded, value = pieces[i]
        if is_encoded and i == 0 and value.count(b"'") > 1:
            charset_bytes, _, value = value.split(b"'", 2)
            charset = charset_bytes.decode("latin-1")
        content += unquote_to_bytes(value) if is_encoded else value
    return _decode(content, charset)


def _decode_plain(value: bytes) -> str:
    text = _decode(value, "utf-8") or _decode(value, "cp1252") or value.decode("latin-1")
    if _ENCODED_WORDS.fullmatch(text):
        return _decode_words(text) or text
    for escape, letter in _BROWSERS_ESCAPES.items():
        text = text.replace(escape, letter)
    return text


def _decode_words(text: str) -> str | None:
    try:
        words = decode_header(text.strip())
    except (HeaderParseError, ValueError):
        return None
    decoded = [
        part if isinstance(part, str) else _decode(part, charset or "ascii")
        for part, charset in words
    ]
    return None if None in decoded else "".join(filter(None, decoded))


def _decode(content: bytes, charset: str) -> str | None:
    try:
        text = content.decode(charset)
    except (LookupError, ValueError):  # no such charset, or not in it
        return None
    return text if isinstance(text, str) else None
