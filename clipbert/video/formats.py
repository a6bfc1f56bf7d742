"""Which files are read: their extensions, demuxers and codecs. The one list; imports nothing.

An extension only says which files of a folder are worth sending. What a file is, its first bytes
say (clipbert.video.containers). A demuxer or a codec stands here once a test has read a file of its
kind and another has fed it damaged ones (tests/clipbert/video/test_format_fuzz.py).
"""

VIDEO_EXTENSIONS = frozenset(
    {".264", ".265", ".3g2", ".3gp", ".3gp2", ".3gpp", ".3gpp2", ".apng", ".asf", ".avc", ".avi"}
    | {".dif", ".divx", ".dv", ".evo", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hdmov", ".hevc"}
    | {".insv", ".ismv", ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".m4v", ".mk3d", ".mkv"}
    | {".mov", ".mp2v", ".mp4", ".mp4v", ".mpe", ".mpeg", ".mpg", ".mpg4", ".mpv", ".mpv2", ".mqv"}
    | {".mts", ".mxf", ".ogg", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".tod", ".tp", ".trp", ".ts"}
    | {".vob", ".vro", ".webm", ".wm", ".wmv"}
)
IMAGE_EXTENSIONS = frozenset(
    {".avif", ".heic", ".heif", ".hif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".webp"}
)
MEDIA_EXTENSIONS = VIDEO_EXTENSIONS | IMAGE_EXTENSIONS

# FFmpeg's demuxers, each with what people call its files.
CONTAINERS = {
    "mov": "MP4, MOV, M4V, 3GP, HEIC or AVIF",
    "matroska": "Matroska or WebM",
    "avi": "AVI",
    "asf": "ASF or WMV",
    "flv": "FLV",
    "mpeg": "MPEG-PS or VOB",
    "mpegts": "MPEG-TS",
    "mpegvideo": "MPEG-1 or MPEG-2 elementary stream",
    "m4v": "MPEG-4 elementary stream",
    "h264": "H.264 elementary stream",
    "hevc": "HEVC elementary stream",
    "mxf": "MXF",
    "dv": "DV",
    "ogg": "Ogg",
    "rm": "RealMedia",
    "gif": "GIF",
    "apng": "APNG",
    "jpeg_pipe": "JPEG",
    "png_pipe": "PNG",
    "webp_pipe": "WebP",
}
READ_IN_WORDS = ", ".join(CONTAINERS.values())
# A file of one picture, which is a video of one frame.
STILL_DEMUXERS = frozenset({"jpeg_pipe", "png_pipe", "webp_pipe"})
# A mere sequence of frames: it states their rate at most. FFmpeg guesses the times, not always
# well, and cannot seek.
CLOCKLESS_DEMUXERS = frozenset({"mpegvideo", "m4v", "h264", "hevc"})
# Animated pictures: a frame is drawn over those before it, and seeking is no gain.
ANIMATION_DEMUXERS = frozenset({"gif", "apng"})

# FFmpeg's decoders.
CODECS = frozenset(
    {"h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg4", "theora"}
    | {"mpeg1video", "mpeg2video", "h261", "h263"}
    | {"msmpeg4v1", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2", "wmv3", "vc1"}
    | {"flv", "flashsv", "flashsv2", "vp6", "vp6a", "vp6f"}
    | {"rv10", "rv20", "rv30", "rv40", "svq1", "svq3"}
    | {"cinepak", "indeo3", "indeo4", "indeo5", "msvideo1", "qtrle"}
    | {"dvvideo", "dnxhd", "prores", "cfhd", "jpeg2000"}
    | {"huffyuv", "ffvhuff", "ffv1", "utvideo", "magicyuv", "rawvideo", "v210"}
    | {"mjpeg", "png", "apng", "gif", "webp"}
)
# Of these, those that may be a track of one picture: a cover beside the film.
PICTURE_CODECS = frozenset({"mjpeg", "png", "apng", "gif", "webp"})
