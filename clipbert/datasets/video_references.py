"""What a text may name: the one rule of which video a person, a line or a command means.

    file:///films/cam2/0001.mp4   a URI: that file, and no other
    /films/cam2/0001.mp4          an absolute path: as the URI of the file
    cam2/0001.mp4                 a file 0001.mp4 in a folder cam2, wherever that lies
    0001.mp4                      a file of this name
    0001                          also one whose ending is left out: 0001.mp4, 0001.MOV

What is written counts: a scheme, a folder or an ending that a file does not have is another file's.
Only a bare name may do without its ending, which is one of clipbert.video.formats: `v1.2` has none.
Upper and lower case differ. Unicode is compared in NFC, since macOS gives names in NFD; `.` and
`..` are followed. A file that was uploaded has a name, and no folder.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Final, Generic, TypeVar
from urllib.parse import quote, unquote_to_bytes

from clipbert.video.formats import MEDIA_EXTENSIONS

_FILE: Final = "file"
_URI: Final = re.compile(r"(file|upload):(/.*)|([a-z][a-z0-9+.-]+)://.*", re.DOTALL | re.IGNORECASE)
_THIS_MACHINE: Final = frozenset({"", "localhost"})
_NOT_UTF8: Final = "\N{REPLACEMENT CHARACTER}"
_HALF_PAIR: Final = re.compile(r"[\ud800-\udfff]")

Item = TypeVar("Item")


class Fit(IntEnum):
    """How well a text names a file; the least is the best, and rules out the others."""

    EXACT = 0  # the same URI, byte for byte
    WHOLE = 1  # all that is written is so, and the name is whole
    WITHOUT_ENDING = 2


@dataclass(frozen=True)
class FileName:
    """A file as it can be named.

    Attributes:
        scheme: `file`, `upload`, or another; None of a path in a folder that is not known.
        parts: the folders on the way to it and its name, in NFC; empty if it has none.
        uri: its URI, as it is kept; None of a path.
    """

    scheme: str | None
    parts: tuple[str, ...]
    uri: str | None = None


@dataclass(frozen=True)
class VideoReference:
    """A text that is to name a video.

    Attributes:
        written: the text.
    """

    written: str

    @cached_property
    def file(self) -> FileName:
        """What file it names."""
        uri = _URI.fullmatch(self.written)
        if uri is not None:
            return file_of_uri(self.written)
        if self.written.startswith("/"):
            parts = _parts(self.written, is_absolute=True)
            return FileName(_FILE, parts, _file_uri(_path_bytes(self.written)))
        return FileName(None, _parts(self.written, is_absolute=False))

    @property
    def is_bare(self) -> bool:
        """Whether it is a name and no more."""
        return self.file.scheme is None and len(self.file.parts) == 1

    @property
    def name(self) -> str | None:
        """The file name in it, in NFC; None if it can name no file."""
        return self.file.parts[-1] if self.file.parts else None

    @property
    def may_lack_ending(self) -> bool:
        """Whether it is a bare name without an ending."""
        return self.is_bare and split_ending(self.file.parts[0])[1] == ""

    def fit(self, file: FileName) -> Fit | None:
        """Return how well it names a file; None: it names another, or none."""
        wanted = self.file
        if file.uri is not None and file.uri in {self.written, wanted.uri}:
            return Fit.EXACT
        if not wanted.parts:
            return None
        if wanted.scheme is not None:
            is_it = (wanted.scheme, wanted.parts) == (file.scheme, file.parts)
            return Fit.WHOLE if is_it else None
        if file.parts[-len(wanted.parts) :] == wanted.parts:
            return Fit.WHOLE
        if self.may_lack_ending and file.parts:
            stem, ending = split_ending(file.parts[-1])
            return Fit.WITHOUT_ENDING if ending and stem == wanted.parts[0] else None
        return None


class ReferenceIndex(Generic[Item]):
    """Files found by what may name them, however many share a name.

    Args:
        files: each with what is to be found.
    """

    def __init__(self, files: Iterable[tuple[FileName, Item]]) -> None:
        self._files = list(files)
        # By so many last parts of the path, made when first asked for.
        self._by_end: dict[int, dict[tuple[str, ...], list[int]]] = {}
        self._by_stem: dict[str, list[int]] | None = None

    def find(self, reference: VideoReference) -> Sequence[Item]:
        """Return what a text may mean: nothing, one, or several if it is ambiguous."""
        wanted = reference.file.parts
        if not wanted:
            return []
        places = self._ending_in(len(wanted)).get(wanted, [])
        if not places and reference.may_lack_ending:
            places = self._without_ending().get(wanted[0], [])
        fits = [(place, reference.fit(self._files[place][0])) for place in places]
        best = min((fit for _, fit in fits if fit is not None), default=None)
        return [self._files[place][1] for place, fit in fits if fit is not None and fit == best]

    def _ending_in(self, count: int) -> dict[tuple[str, ...], list[int]]:
        if count not in self._by_end:
            found: dict[tuple[str, ...], list[int]] = {}
            self._by_end[count] = found
            for place, (file, _) in enumerate(self._files):
                if len(file.parts) >= count:
                    found.setdefault(file.parts[-count:], []).append(place)
        return self._by_end[count]

    def _without_ending(self) -> dict[str, list[int]]:
        if self._by_stem is None:
            self._by_stem = {}
            for place, (file, _) in enumerate(self._files):
                stem, ending = split_ending(file.parts[-1]) if file.parts else ("", "")
                if ending:
                    self._by_stem.setdefault(stem, []).append(place)
        return self._by_stem


def file_of_uri(uri: str) -> FileName:
    """Read a URI as the file that it names."""
    match = _URI.fullmatch(uri)
    if match is None:
        return FileName(None, (), uri)
    if match[1] is None:
        return FileName(match[3].lower(), (), uri)
    scheme, rest = match[1].lower(), match[2]
    if rest.startswith("//"):
        machine, slash, path = rest[2:].partition("/")
        if machine.lower() not in _THIS_MACHINE:
            return FileName(scheme, (), uri)
        rest = slash + path
    # A `?` or `#` is a letter of the name: to read it otherwise would leave out what is written.
    path_bytes = unquote_to_bytes(rest)
    parts = _parts(path_bytes.decode("utf-8", "replace"), is_absolute=True)
    return FileName(scheme, parts, _file_uri(path_bytes) if scheme == _FILE else uri)


def file_of_path(path: str) -> FileName:
    """Read the absolute path of a file of this machine."""
    return VideoReference(path).file


def split_ending(name: str) -> tuple[str, str]:
    """Split the ending from a file name, if it is one of a video or a picture.

    split_ending("v1.2.MP4")  ->  ("v1.2", ".MP4"), and split_ending("v1.2")  ->  ("v1.2", "")
    """
    stem, dot, ending = name.rpartition(".")
    if stem and f".{ending.lower()}" in MEDIA_EXTENSIONS:
        return stem, dot + ending
    return name, ""


def _parts(path: str, *, is_absolute: bool) -> tuple[str, ...]:
    """Return the parts of a path; none if it leads out of what is known, or to a folder."""
    parts: list[str] = []
    last = ""
    for last in path.split("/"):
        if last in {"", "."}:
            continue
        if last != "..":
            parts.append(last)
        elif parts:
            parts.pop()
        elif not is_absolute:
            return ()
    if last in {"", ".", ".."}:
        return ()
    return tuple(_text(part) for part in parts)


def _text(part: str) -> str:
    """Return a name as it is kept: in NFC, and what is not UTF-8 replaced."""
    if _is_odd(part):
        try:
            part = part.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        except UnicodeEncodeError:
            part = _HALF_PAIR.sub(_NOT_UTF8, part)
    return unicodedata.normalize("NFC", part)


def _is_odd(text: str) -> bool:
    """Whether a text has bytes that are not UTF-8, as paths may, or half of a surrogate pair."""
    return not text.isascii() and _HALF_PAIR.search(text) is not None


def _path_bytes(path: str) -> bytes:
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair, which no path holds
        return path.encode("utf-8", "replace")


def _file_uri(path: bytes) -> str:
    return "file://" + quote(path)
