"""What a file is by its first bytes: the demuxer that reads it, or what people call it.

The demuxers are those of clipbert.video.formats.
"""

# So much of a file is looked at.
HEAD_BYTES = 4096
_MP4_BOXES = frozenset(
    {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"pdin", b"uuid"}
)
# MPEG-TS, the same with a time before each packet, and with parity after it. One begins with a G.
_TS_PACKET_BYTES = (188, 192, 204)
# So many packets in a row tell MPEG-TS from chance; a copied recording may begin within a packet.
_TS_PACKETS = 4
_TS_BYTES = 1024
# Some writers pad a file before its header (SMPTE 377: the run-in), with anything.
_MXF_HEADER = b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02"
# What begins a file of each demuxer, for those of which that is all there is to say.
_DEMUXERS = (
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"OggS", "ogg"),
    (b"FLV\x01", "flv"),
    (b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\x00\xaa\x00b\xcel", "asf"),
    (b".RMF", "rm"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"\xff\xd8\xff", "jpeg_pipe"),
    (b"\x89PNG\r\n\x1a\n", "png_pipe"),
    (b"\x1f\x07\x00\x3f", "dv"),
    (b"\x1f\x07\x00\xbf", "dv"),
)
# The code after a start code (00 00 01) says what stream it is; the mask is over what may vary.
_START_CODES = (
    (0xBA, 0xFF, "mpeg"),  # a pack
    (0xBB, 0xFF, "mpeg"),  # a system header, in recordings without packs
    (0xE0, 0xF0, "mpeg"),  # a packet of video
    (0xB3, 0xFF, "mpegvideo"),  # a sequence header
    (0xB0, 0xFF, "m4v"),  # a sequence of visual objects
)
_H264_FIRST_UNITS = frozenset({7, 9})  # parameters, or a mark between pictures
_HEVC_FIRST_UNITS = frozenset({32, 33, 35})
_RIFF_KINDS = {b"AVI ": "avi", b"WEBP": "webp_pipe"}

# What else people send, and what they call it.
_STRANGERS = (
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"(\xb5/\xfd", "a zstd archive"),
    (b"ID3", "an MP3 sound file"),
    (b"fLaC", "a FLAC sound file"),
    (b"FORM", "an AIFF sound file"),
    (b"MThd", "a MIDI file"),
    (b"#!AMR", "an AMR sound file"),
    (b".ra\xfd", "a RealAudio sound file"),
    (b"caff", "a CAF sound file"),
    (b"BM", "a BMP picture"),
    (b"II*\x00", "a TIFF or raw camera picture"),
    (b"MM\x00*", "a TIFF or raw camera picture"),
    (b"8BPS", "a Photoshop picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"DKIF", "an IVF video"),
    (b"YUV4MPEG2", "a YUV4MPEG video"),
    (b"\x12\x00\x0a", "an AV1 elementary stream"),
    (b"nut/multimedia", "a NUT video"),
    (b"\xb7\xd8\x00\x20\x37\x49\xda\x11\xa6\x4e\x00\x07\xe9\x5e\xad\x8d", "a WTV recording"),
    (b"FWS", "a Flash animation"),
    (b"CWS", "a Flash animation"),
    (b"BIK", "a Bink video"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"SQLite format 3", "a SQLite database"),
)
# Texts, by how they begin but for spaces and case.
_TEXTS = (
    (b"#extm3u", "a playlist (HLS or M3U)"),
    (b"[playlist]", "a playlist (PLS)"),
    (b"[reference]", "a playlist (ASX)"),
    (b"<asx", "a playlist (ASX)"),
    (b"<mpd", "a playlist (DASH)"),
    (b"<smil", "a playlist (SMIL)"),
    (b"ffconcat", "a list of files to concatenate"),
    (b"%pdf-", "a PDF document"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"v=0", "a session description (SDP)"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<svg", "an SVG drawing"),
    (b"webvtt", "a file of subtitles"),
    (b"{", "a JSON file"),
    (b"[", "a JSON file"),
    (b"<?xml", "an XML file"),
)
_MPEG_AUDIO_SYNC = 0xFFE0
_FIRST_PRINTABLE = 0x20
_TEXT_CONTROLS = frozenset(b"\t\n\r\f\x1b")


def demuxer_of(head: bytes) -> str | None:
    """Name the demuxer for a file of these first HEAD_BYTES; None if none reads it.

    An APNG begins as a PNG does, and is named as one.
    """
    if head[4:8] in _MP4_BOXES:
        return "mov"
    for signature, name in _DEMUXERS:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF":
        return _RIFF_KINDS.get(head[8:12])
    if _MXF_HEADER in head:
        return "mxf"
    return _stream_of(head)


def kind_of(head: bytes) -> str:
    """Say in words what a file is that no demuxer reads, as "a PDF document"."""
    if all(byte >= _FIRST_PRINTABLE or byte in _TEXT_CONTROLS for byte in head):
        return _text_of(head)
    known = (words for start, words in _STRANGERS if head.startswith(start))
    return next(known, None) or _kind_by_shape(head)


def _stream_of(head: bytes) -> str | None:
    """Name the demuxer of what has no header of its own, a stream of packets or start codes."""
    start = head.lstrip(b"\0")
    num_zeros = len(head) - len(start)
    if num_zeros >= 2 and start[:1] == b"\x01" and len(start) >= 3:  # noqa: PLR2004
        code, after = start[1], start[2]
        for wanted, mask, name in _START_CODES:
            if code & mask == wanted:
                return name
        if code & 0x80 == 0 and code & 0x1F in _H264_FIRST_UNITS and (code & 0x60 or code == 0x09):  # noqa: PLR2004
            return "h264"
        if code & 0x81 == 0 and code >> 1 in _HEVC_FIRST_UNITS and after == 1:
            return "hevc"
    if any(_has_sync_bytes(head[:_TS_BYTES], packet_bytes) for packet_bytes in _TS_PACKET_BYTES):
        return "mpegts"
    return None


def _has_sync_bytes(head: bytes, packet_bytes: int) -> bool:
    starts = range(len(head) - (_TS_PACKETS - 1) * packet_bytes)
    return any(
        head[start : start + _TS_PACKETS * packet_bytes : packet_bytes] == b"G" * _TS_PACKETS
        for start in starts
    )


def _kind_by_shape(head: bytes) -> str:
    if head[:4] == b"RIFF":
        return "a WAVE sound file" if head[8:12] == b"WAVE" else "a RIFF file that is not an AVI"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if not head.strip(b"\0"):
        return "nothing but zero bytes"
    if int.from_bytes(head[:2], "big") & _MPEG_AUDIO_SYNC == _MPEG_AUDIO_SYNC:
        return "an MP3 or AAC sound file"
    return "of no kind known here"


def _text_of(head: bytes) -> str:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    beginning = (words for start, words in _TEXTS if text.startswith(start))
    words = next(beginning, "a text file")
    if text.startswith(b"<?xml"):
        inside = (words for start, words in _TEXTS if start[:1] == b"<" and start in text[1:])
        return next(inside, words)
    return words
