"""A picture of the evidence: a frame of each clip, when it is, how much the answer rests on it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageFont, ImageOps
from PIL.ImageDraw import Draw, ImageDraw

from clipbert.inference.evidence import ClipEvidence
from clipbert.video.decode import decode_frames

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

_FRAME_PX = (240, 135)
_MARGIN_PX, _TITLE_PX, _CAPTION_PX, _BAR_PX = 16, 48, 44, 10
_BACKGROUND, _FRAME_GROUND = (250, 250, 248), (28, 28, 30)
_INK, _FAINT_INK = (24, 24, 27), (113, 113, 122)
_BAR, _BAR_GROUND = (37, 99, 235), (228, 228, 231)
_MOST_COLUMNS = 4


def draw_evidence(path: Path | str, evidence: Sequence[ClipEvidence], *, title: str) -> Image.Image:
    """Draw the clips of an answer or a score: a frame of each, its moment, its share as a bar.

        draw_evidence("v.mp4", answer.evidence, title=answer.answer).save("evidence.png")

    Args:
        path: the video that was looked at.
        evidence: of a VideoAnswer or a TextScore, at least one clip.
        title: a line above.

    Raises:
        ValueError: no clips.
        VideoError: the video can no longer be decoded.
    """
    if not evidence:
        raise ValueError("draw_evidence needs at least one clip")
    # The middle frame stands for its clip.
    instants = [clip.instants[len(clip.instants) // 2] for clip in evidence]
    frames = decode_frames(Path(path), instants, max_side_px=2 * _FRAME_PX[0])
    columns = min(_MOST_COLUMNS, len(evidence))
    rows = -(-len(evidence) // columns)
    cell_width, cell_height = _FRAME_PX[0] + _MARGIN_PX, sum(_FRAME_PX[1:]) + _CAPTION_PX
    sheet = Image.new(
        "RGB",
        (columns * cell_width + _MARGIN_PX, _TITLE_PX + rows * (cell_height + _MARGIN_PX)),
        _BACKGROUND,
    )
    draw = Draw(sheet)
    draw.text((_MARGIN_PX, _MARGIN_PX), title, fill=_INK, font=_font(20))
    for cell, (clip, frame) in enumerate(zip(evidence, frames, strict=True)):
        left = _MARGIN_PX + cell % columns * cell_width
        top = _TITLE_PX + cell // columns * (cell_height + _MARGIN_PX)
        sheet.paste(
            ImageOps.pad(Image.fromarray(frame), _FRAME_PX, color=_FRAME_GROUND), (left, top)
        )
        _draw_caption(draw, clip, left=left, top=top + _FRAME_PX[1])
    return sheet


def _draw_caption(draw: ImageDraw, clip: ClipEvidence, *, left: int, top: int) -> None:
    right, bar_top = left + _FRAME_PX[0] - 1, top + 6
    draw.rectangle((left, bar_top, right, bar_top + _BAR_PX - 1), fill=_BAR_GROUND)
    width = round(clip.share * _FRAME_PX[0])
    if width:
        draw.rectangle((left, bar_top, left + width - 1, bar_top + _BAR_PX - 1), fill=_BAR)
    moment = f"{clip.start_seconds:.1f}-{clip.end_seconds:.1f} s   share {clip.share:.1%}"
    draw.text((left, bar_top + _BAR_PX + 4), moment, fill=_FAINT_INK, font=_font(14))


def _font(size_px: int) -> "FreeTypeFont | BitmapFont":
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size_px)
    except OSError:
        return ImageFont.load_default(size_px)
