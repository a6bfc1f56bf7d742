"""A picture of search hits: one row a hit, its frame at the hit's instant beside what was found."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import CliError
from cli.show.console import file_name, format_span
from cli.show.table import one_line
from clipbert_client.client import ApiClient, Json
from clipbert_client.errors import ApiProblem, ClientError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

MOST_DOWNLOAD_BYTES = 512 * 2**20  # a longer file is shown by its thumbnail instead
FRAME_WIDTH_PX, FRAME_HEIGHT_PX = 320, 180
WHY_NO_MEDIA = {
    "media_changed": "the file has changed since it was indexed",
    "media_gone": "the file is missing",
    "video_not_found": "the video was deleted",
}
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
MARGIN_PX, CAPTION_WIDTH_PX, TITLE_HEIGHT_PX = 16, 460, 56
BACKGROUND, FRAME_GROUND = (250, 250, 248), (28, 28, 30)
INK, FAINT_INK, BAR, BAR_GROUND = (24, 24, 27), (113, 113, 122), (37, 99, 235), (228, 228, 231)
TITLE_FONT_PX, NAME_FONT_PX, TEXT_FONT_PX = 24, 18, 14


def write_sheet(api: ApiClient, text: str, *, hits: Sequence[Json], target: Path) -> None:
    """Draw the hits of a search to a file.

    Args:
        api: where the videos are fetched from.
        text: what was searched; the title.
        hits: the hits of a search result, in order.
        target: the file to write; its extension says in which format.

    Raises:
        CliError: the file cannot be written.
    """
    image_format = format_of(target)
    pictures = fetch_pictures(api, hits)
    sheet = draw_sheet(text, list(zip(hits, pictures, strict=True)))
    try:
        sheet.save(target, format=image_format)
    except OSError as error:
        raise CliError(f"cannot write {target}: {error.strerror or error}") from error


def format_of(target: Path) -> str:
    """Return the format of a picture by its file's extension.

    Raises:
        CliError: it is none of those that can be written.
    """
    known = FORMATS.get(target.suffix.lower())
    if known is None:
        raise CliError(f"--sheet {target}: the name must end in one of {', '.join(FORMATS)}")
    return known


@dataclass(frozen=True)
class Picture:
    """What stands beside a hit.

    Attributes:
        image: the frame at the hit's instant, else the video's poster; None if there is neither.
        why_no_frame: why it is not the frame; None if it is.
    """

    image: "Image | None"
    why_no_frame: str | None = None


def fetch_pictures(api: ApiClient, hits: Sequence[Json]) -> list[Picture]:
    """Get the frame at each hit's instant; each video is fetched and decoded once.

    Returns:
        One picture a hit.
    """
    hits_of_video: dict[str, list[int]] = {}
    for i, hit in enumerate(hits):
        hits_of_video.setdefault(str(hit["video_id"]), []).append(i)
    pictures: dict[int, Picture] = {}
    with tempfile.TemporaryDirectory(prefix="clipbert-sheet-") as folder:
        for video_id, indexes in hits_of_video.items():
            instants = [_middle_instant(hits[i]) for i in indexes]
            # A hit's seconds are a player's; those of the decoder count from the first frame.
            starts_at = float(hits[indexes[0]].get("starts_at_seconds") or 0.0)
            wanted = [max(0.0, instant - starts_at) for instant in instants]
            pictures.update(zip(indexes, _decode(api, video_id, wanted, Path(folder)), strict=True))
    return [pictures[i] for i in range(len(hits))]


def draw_sheet(text: str, rows: Sequence[tuple[Json, Picture]]) -> "Image":
    """Draw the title and one row a hit: frame, rank, video, moment, a bar as long as its score."""
    from PIL import Image, ImageOps
    from PIL.ImageDraw import Draw

    row_height = FRAME_HEIGHT_PX + MARGIN_PX
    width = FRAME_WIDTH_PX + CAPTION_WIDTH_PX + 3 * MARGIN_PX
    height = TITLE_HEIGHT_PX + MARGIN_PX + max(1, len(rows)) * row_height
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = Draw(sheet)
    title = _shorten(f"“{text}”", _font(TITLE_FONT_PX), width - 2 * MARGIN_PX)
    draw.text((MARGIN_PX, MARGIN_PX), title, fill=INK, font=_font(TITLE_FONT_PX))
    if not rows:
        draw.text(
            (MARGIN_PX, TITLE_HEIGHT_PX), "nothing found", fill=FAINT_INK, font=_font(NAME_FONT_PX)
        )
    best = max((hit["score"] for hit, _ in rows), default=0.0)
    for i, (hit, picture) in enumerate(rows):
        top = TITLE_HEIGHT_PX + MARGIN_PX + i * row_height
        # PIL's rectangles include their last row and column.
        box = (MARGIN_PX, top, MARGIN_PX + FRAME_WIDTH_PX - 1, top + FRAME_HEIGHT_PX - 1)
        draw.rectangle(box, fill=FRAME_GROUND)
        if picture.image is not None:
            shown = picture.image.convert("RGB")
            fitted = ImageOps.contain(shown, (FRAME_WIDTH_PX, FRAME_HEIGHT_PX))
            left = MARGIN_PX + (FRAME_WIDTH_PX - fitted.width) // 2
            sheet.paste(fitted, (left, top + (FRAME_HEIGHT_PX - fitted.height) // 2))
        _draw_caption(draw, hit, picture, left=2 * MARGIN_PX + FRAME_WIDTH_PX, top=top, best=best)
    return sheet


def _draw_caption(
    draw: "ImageDraw", hit: Json, picture: Picture, *, left: int, top: int, best: float
) -> None:
    name = _shorten(file_name(str(hit["uri"])), _font(NAME_FONT_PX), CAPTION_WIDTH_PX)
    draw.text((left, top), f"{hit['rank']}", fill=FAINT_INK, font=_font(TITLE_FONT_PX))
    draw.text((left, top + 36), name, fill=INK, font=_font(NAME_FONT_PX))
    moment = format_span(hit["start_seconds"], hit["end_seconds"])
    lines = [f"{moment}   {describe_picture(hit, picture)}"]
    scores = [f"score {hit['score']:.3f}"]
    for part in ("recall_score", "match_score"):
        if hit.get(part) is not None:
            scores.append(f"{part.removesuffix('_score')} {hit[part]:.3f}")
    lines.append("   ".join(scores))
    for i, line in enumerate(lines):
        shown = _shorten(line, _font(TEXT_FONT_PX), CAPTION_WIDTH_PX)
        draw.text((left, top + 68 + 24 * i), shown, fill=FAINT_INK, font=_font(TEXT_FONT_PX))
    bar_top = top + 128
    draw.rectangle((left, bar_top, left + CAPTION_WIDTH_PX, bar_top + 8), fill=BAR_GROUND)
    share = max(0.0, hit["score"] / best) if best > 0 else 0.0
    if share > 0:
        draw.rectangle((left, bar_top, left + CAPTION_WIDTH_PX * share, bar_top + 8), fill=BAR)


def describe_picture(hit: Json, picture: Picture) -> str:
    """Return what the picture beside a hit shows, as its caption says it."""
    if picture.why_no_frame is None:
        return f"frame at {_middle_instant(hit):.1f} s"
    shown = "no picture" if picture.image is None else "the poster, not this moment"
    return f"{shown}: {picture.why_no_frame}"


def _middle_instant(hit: Json) -> float:
    instants = hit.get("instants") or [(hit["start_seconds"] + hit["end_seconds"]) / 2]
    return float(instants[len(instants) // 2])


def _decode(
    api: ApiClient, video_id: str, instants: Sequence[float], folder: Path
) -> list[Picture]:
    from PIL import Image

    from clipbert.errors import VideoError
    from clipbert.video.decode import decode_frames

    media = folder / video_id
    try:
        is_here = api.download(
            f"/v1/videos/{video_id}/media", media, most_bytes=MOST_DOWNLOAD_BYTES
        )
        why_no_frame = f"the file is longer than {MOST_DOWNLOAD_BYTES // 2**20} MiB"
    except ApiProblem as problem:  # moved, changed or deleted since it was indexed
        is_here = False
        why_no_frame = WHY_NO_MEDIA.get(problem.code, f"the file is not there ({problem.code})")
    if is_here:
        try:
            # decode_frames wants ascending instants; hits come by score.
            ascending = sorted(set(instants))
            decoded = decode_frames(media, ascending, max_side_px=2 * FRAME_WIDTH_PX)
        except VideoError as error:  # a poster is better than no sheet
            why_no_frame = f"it cannot be decoded here ({error.code})"
        else:
            by_instant = dict(zip(ascending, decoded, strict=True))
            return [Picture(Image.fromarray(by_instant[instant])) for instant in instants]
        finally:
            media.unlink(missing_ok=True)
    return [Picture(_poster(api, video_id, folder), why_no_frame)] * len(instants)


def _poster(api: ApiClient, video_id: str, folder: Path) -> "Image | None":
    from PIL import Image

    file = folder / f"{video_id}.jpg"
    try:
        if not api.download(
            f"/v1/videos/{video_id}/thumbnails/poster", file, most_bytes=MOST_DOWNLOAD_BYTES
        ):
            return None
    except ClientError:
        return None
    with Image.open(file) as image:
        return image.copy()


def _font(size_px: int) -> "FreeTypeFont | BitmapFont":
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", size_px)  # it has the most letters
    except OSError:
        return ImageFont.load_default(size_px)


def _shorten(text: str, font: "FreeTypeFont | BitmapFont", width_px: int) -> str:
    text = one_line(text)  # what is not a letter cannot be drawn
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(f"{text}…") > width_px:
        text = text[:-1]
    return f"{text}…"
