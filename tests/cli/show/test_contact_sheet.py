import io

import numpy as np
import pytest
from PIL import Image
from videos import frame_number, write_counting_video

from cli.show.contact_sheet import (
    BAR,
    BAR_GROUND,
    CAPTION_WIDTH_PX,
    FRAME_GROUND,
    FRAME_HEIGHT_PX,
    FRAME_WIDTH_PX,
    MARGIN_PX,
    TITLE_HEIGHT_PX,
    Picture,
    describe_picture,
    draw_sheet,
    fetch_pictures,
    write_sheet,
)
from clipbert_client.client import ApiClient

RED = (200, 10, 10)
ROW_PX = FRAME_HEIGHT_PX + MARGIN_PX
FIRST_ROW_PX = TITLE_HEIGHT_PX + MARGIN_PX
BAR_MIDDLE_PX = 132


def hit(rank, score, uri="file:///v/clip.mp4", **parts):
    return {
        "rank": rank,
        "score": score,
        "uri": uri,
        "video_id": "v",
        "start_seconds": 0.0,
        "end_seconds": 2.0,
        "instants": [1.0],
        **parts,
    }


def test_each_hit_has_a_row_with_its_frame_unstretched():
    square = Image.new("RGB", (90, 90), RED)

    sheet = draw_sheet("a dog", [(hit(1, 0.9), Picture(square)), (hit(2, 0.3), Picture(None))])

    assert sheet.height == FIRST_ROW_PX + 2 * ROW_PX
    middle = MARGIN_PX + FRAME_WIDTH_PX // 2
    assert sheet.getpixel((middle, FIRST_ROW_PX + 90)) == RED
    assert sheet.getpixel((MARGIN_PX + 5, FIRST_ROW_PX + 90)) == FRAME_GROUND  # beside the square
    assert sheet.getpixel((middle, FIRST_ROW_PX + ROW_PX + 90)) == FRAME_GROUND  # no frame to show


def test_bars_are_as_long_as_the_scores():
    sheet = draw_sheet(
        "a dog", [(hit(n, score), Picture(None)) for n, score in enumerate([0.8, 0.4, -0.1])]
    )

    left = 2 * MARGIN_PX + FRAME_WIDTH_PX
    for row, share in enumerate([1.0, 0.5, 0.0]):
        y = FIRST_ROW_PX + row * ROW_PX + BAR_MIDDLE_PX
        blue = sum(sheet.getpixel((left + x, y)) == BAR for x in range(CAPTION_WIDTH_PX))
        grey = sum(sheet.getpixel((left + x, y)) == BAR_GROUND for x in range(CAPTION_WIDTH_PX))
        assert abs(blue - share * CAPTION_WIDTH_PX) <= 1
        assert blue + grey == CAPTION_WIDTH_PX


def test_long_texts_and_names_stay_on_the_sheet():
    long_name = f"file:///v/{'x' * 300}.mp4"

    sheet = draw_sheet(
        "y" * 500, [(hit(1, 0.9, long_name, match_score=0.4), Picture(None, "z" * 300))]
    )

    right_margin = sheet.crop((sheet.width - MARGIN_PX + 2, 0, sheet.width, sheet.height))
    assert len(right_margin.getcolors()) == 1


def test_a_sheet_without_hits_says_so():
    sheet = draw_sheet("a unicorn", [])

    assert sheet.height > TITLE_HEIGHT_PX
    assert len(sheet.getcolors(maxcolors=4096)) > 1


def test_a_hit_whose_file_is_gone_is_shown_by_its_poster(api, tmp_path):
    poster = io.BytesIO()
    Image.new("RGB", (320, 180), RED).save(poster, format="JPEG", quality=100)
    api.refuse("GET", "/v1/videos/v/media", 404, "media_gone")
    api.answer("GET", "/v1/videos/v/thumbnails/poster", poster.getvalue())
    api.refuse("GET", "/v1/videos/w/media", 404, "media_gone")
    hits = [hit(1, 0.9), {**hit(2, 0.8), "video_id": "w"}]

    with ApiClient(api.url, "key") as client:
        write_sheet(client, "a dog", hits=hits, target=tmp_path / "hits.png")

    with Image.open(tmp_path / "hits.png") as sheet:
        middle = MARGIN_PX + FRAME_WIDTH_PX // 2
        assert abs(sheet.getpixel((middle, FIRST_ROW_PX + 90))[0] - RED[0]) < 5
        assert sheet.getpixel((middle, FIRST_ROW_PX + ROW_PX + 90)) == FRAME_GROUND


@pytest.mark.parametrize(
    ("code", "has_poster", "caption"),
    [
        ("media_changed", True, "the poster, not this moment: the file has changed since it was"),
        ("media_gone", True, "the poster, not this moment: the file is missing"),
        ("media_gone", False, "no picture: the file is missing"),
    ],
)
def test_a_poster_is_not_said_to_be_the_moments_frame(api, code, has_poster, caption):
    poster = io.BytesIO()
    Image.new("RGB", (320, 180), RED).save(poster, format="JPEG")
    api.refuse("GET", "/v1/videos/v/media", 409, code)
    if has_poster:
        api.answer("GET", "/v1/videos/v/thumbnails/poster", poster.getvalue())

    with ApiClient(api.url, "key") as client:
        [picture] = fetch_pictures(client, [hit(1, 0.9)])

    said = describe_picture(hit(1, 0.9), picture)
    assert said.startswith(caption)
    assert "frame at" not in said
    assert describe_picture(hit(1, 0.9), Picture(picture.image)) == "frame at 1.0 s"


def test_control_characters_in_texts_and_names_are_drawn_as_spaces():
    sheet = draw_sheet("bird\nx", [(hit(1, 0.9, "file:///v/new%0Aline%09.mp4"), Picture(None))])

    assert (
        sheet.tobytes()
        == draw_sheet(
            "bird x", [(hit(1, 0.9, "file:///v/new%20line%20.mp4"), Picture(None))]
        ).tobytes()
    )


@pytest.mark.parametrize(("name", "image_format"), [("a.JPG", "JPEG"), ("a.webp", "WEBP")])
def test_the_extension_says_the_format(tmp_path, name, image_format):
    write_sheet(None, "a dog", hits=[], target=tmp_path / name)

    with Image.open(tmp_path / name) as sheet:
        assert sheet.format == image_format


@pytest.mark.parametrize("name", ["hits", "hits.gif", "hits.png.txt"])
def test_an_extension_of_no_picture_is_refused_before_the_search(api, clipbert, tmp_path, name):
    said = clipbert("search", "a dog", "--sheet", tmp_path / name, code=1)

    assert "must end in one of .png, .jpg" in said.err
    assert api.requests == []


def test_the_frame_is_the_one_that_a_player_shows_at_the_hits_second(api, tmp_path):
    film = write_counting_video(tmp_path / "v.mp4", 60, fps=10)
    api.answer("GET", "/v1/videos/v/media", film.read_bytes())
    late = {"start_seconds": 3.4, "end_seconds": 5.4, "instants": [4.45], "starts_at_seconds": 1.4}

    with ApiClient(api.url, "key") as client:
        [picture] = fetch_pictures(client, [hit(1, 0.9, **late)])

    # The film begins at 1.4 s of its file's clock, so that its frame 30 is shown from 4.4 s on.
    assert frame_number(np.asarray(picture.image)) == 30
