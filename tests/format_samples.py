"""A small video of each kind that is read: container, codec, pixel format."""

from dataclasses import dataclass, field
from pathlib import Path

from odd_frames import write_cells


@dataclass(frozen=True)
class Kind:
    """How a video of one kind is written.

    Attributes:
        name: of the file; its extension chooses the container.
        codec: FFmpeg's encoder.
        demuxer: that it is read by.
        disguise: an encoder's mark in the file and the mark of another codec, which has no
            encoder: its decoder gets data that are not its own.
    """

    name: str
    codec: str
    demuxer: str
    pixel_format: str = "yuv420p"
    size: tuple[int, int] = (160, 96)
    options: dict[str, str] = field(default_factory=dict)
    container: str | None = None
    disguise: tuple[bytes, bytes] | None = None
    b_frames: int | None = None
    fps: int = 25

    def __str__(self) -> str:
        """Name a test's case."""
        return f"{self.name}-{self.codec}"

    def write(self, folder: Path, num_frames: int) -> Path:
        """Write a video of so many numbered frames."""
        path = write_cells(
            folder / self.name,
            num_frames,
            codec=self.codec,
            size=self.size,
            pixel_format=self.pixel_format,
            options=self.options,
            container=self.container,
            b_frames=self.b_frames,
            fps=self.fps,
        )
        if self.disguise is not None:
            mark, other = self.disguise
            content = path.read_bytes()
            assert mark in content
            path.write_bytes(content.replace(mark, other))
        return path


_DNXHR = {"profile": "dnxhr_sq"}
SAMPLES = [
    Kind("v.flv", "flv", "flv"),
    Kind("v.flv", "libx264", "flv", b_frames=2),
    Kind("v.flv", "flashsv", "flv", "bgr24"),
    Kind("v.flv", "flashsv2", "flv", "bgr24"),
    Kind("v.wmv", "wmv1", "asf"),
    Kind("v.wmv", "wmv2", "asf"),
    Kind("v.asf", "msmpeg4", "asf"),
    Kind("v.asf", "mpeg4", "asf"),
    Kind("v.mxf", "mpeg2video", "mxf", b_frames=2),
    Kind("v.mxf", "dnxhd", "mxf", "yuv422p", (256, 128), _DNXHR),
    Kind("v.mxf", "jpeg2000", "mxf", "yuv422p"),
    Kind("v.mxf", "prores_ks", "mxf", "yuv422p10le"),
    Kind("v.mxf", "libx264", "mxf", b_frames=2),
    Kind("v.dv", "dvvideo", "dv", "yuv420p", (720, 576)),
    Kind("v.avi", "dvvideo", "avi", "yuv420p", (720, 576)),
    Kind("v.mov", "dvvideo", "mov", "yuv420p", (720, 576)),
    Kind("v.rm", "rv10", "rm", size=(176, 144)),
    Kind("v.rm", "rv20", "rm", size=(176, 144)),
    Kind("v.m1v", "mpeg1video", "mpegvideo", b_frames=2),
    Kind("v.m2v", "mpeg2video", "mpegvideo", b_frames=2),
    Kind("v.m4v", "mpeg4", "m4v", container="m4v", b_frames=2),
    Kind("v.h264", "libx264", "h264", b_frames=2),
    Kind("w.h264", "libx264", "h264", b_frames=0, fps=10),
    Kind("v.hevc", "libx265", "hevc", options={"x265-params": "log-level=none:bframes=2"}),
    Kind("v.3gp", "h263", "mov", size=(176, 144)),
    Kind("v.3gp", "mpeg4", "mov"),
    Kind("v.3g2", "libx264", "mov", b_frames=2),
    Kind("v.mov", "dnxhd", "mov", "yuv422p", (256, 128), _DNXHR),
    Kind("v.mov", "prores_ks", "mov", "yuv422p10le"),
    Kind("v.mov", "jpeg2000", "mov"),
    Kind("v.mov", "svq1", "mov", "yuv410p"),
    Kind("v.mov", "qtrle", "mov", "rgb24"),
    Kind("v.mov", "cfhd", "mov", "yuv422p10le"),
    Kind("v.mov", "v210", "mov", "yuv422p10le", (192, 96)),
    Kind("v.mov", "png", "mov", "rgb24"),
    Kind("v.mov", "cinepak", "mov", "rgb24"),
    Kind("v.avi", "cinepak", "avi", "rgb24"),
    Kind("v.avi", "huffyuv", "avi", "yuv422p"),
    Kind("v.avi", "ffvhuff", "avi"),
    Kind("v.avi", "utvideo", "avi"),
    Kind("v.avi", "magicyuv", "avi", "yuv422p"),
    Kind("v.avi", "ffv1", "avi"),
    Kind("v.avi", "msvideo1", "avi", "rgb555le"),
    Kind("v.avi", "msmpeg4v2", "avi"),
    Kind("v.avi", "h261", "avi", size=(176, 144)),
    Kind("v.avi", "mjpeg", "avi", "yuvj420p"),
    Kind("v.mkv", "ffv1", "matroska"),
    Kind("v.mkv", "libx264", "matroska", b_frames=2),
    Kind("v.webm", "libvpx", "matroska"),
    Kind("v.webm", "libvpx-vp9", "matroska"),
    Kind("w.webm", "libvpx", "matroska", "yuva420p", options={"auto-alt-ref": "0"}),
    Kind("w.webm", "libvpx-vp9", "matroska", "yuva420p", options={"auto-alt-ref": "0"}),
    Kind("v.ts", "libx264", "mpegts", b_frames=2),
    Kind("v.vob", "mpeg2video", "mpeg", b_frames=2),
    Kind("v.apng", "apng", "apng", "rgb24"),
    Kind("v.gif", "gif", "gif", "rgb8"),
    Kind("v.avif", "libsvtav1", "mov", options={"svtav1-params": "lp=1"}),
]
# There is no encoder of these.
DISGUISES = [
    Kind("iv3.avi", "cinepak", "avi", "rgb24", disguise=(b"cvid", b"IV32")),
    Kind("iv4.avi", "cinepak", "avi", "rgb24", disguise=(b"cvid", b"IV41")),
    Kind("iv5.avi", "cinepak", "avi", "rgb24", disguise=(b"cvid", b"IV50")),
    Kind("svq3.mov", "svq1", "mov", "yuv410p", disguise=(b"SVQ1", b"SVQ3")),
    Kind("vp6.avi", "mpeg4", "avi", disguise=(b"FMP4", b"VP62")),
    Kind("vp6a.avi", "mpeg4", "avi", disguise=(b"FMP4", b"VP6A")),
    Kind("vp6f.avi", "mpeg4", "avi", disguise=(b"FMP4", b"VP6F")),
    Kind("wmv3.avi", "wmv2", "avi", disguise=(b"WMV2", b"WMV3")),
    Kind("vc1.avi", "wmv2", "avi", disguise=(b"WMV2", b"WVC1")),
    Kind("mpg4.avi", "msmpeg4v2", "avi", disguise=(b"MP42", b"MPG4")),
    Kind("theora.avi", "mpeg4", "avi", disguise=(b"FMP4", b"theo")),
    Kind("rv30.rm", "rv20", "rm", size=(176, 144), disguise=(b"RV20", b"RV30")),
    Kind("rv40.rm", "rv20", "rm", size=(176, 144), disguise=(b"RV20", b"RV40")),
]
