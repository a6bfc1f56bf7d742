"""Which folders `clipbert up` indexes in place when nobody says it again."""

import pytest
from sqlalchemy import text

from cli import media_roots
from cli.commands.doctor import check_media
from cli.errors import CliError
from cli.media_roots import (
    choose_media_roots,
    describe_outside,
    outside_media_roots,
    remember_media_roots,
    remembered_media_roots,
)
from store.videos.repository import VideoRepository
from store.videos.tables import Video


@pytest.fixture
def films(tmp_path):
    folder = tmp_path / "films 100%"
    folder.mkdir()
    return folder


def test_roots_hold_until_others_are_given(tmp_path, films, monkeypatch, capsys):
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    assert choose_media_roots(tmp_path, None) == (other,)

    remember_media_roots(tmp_path, choose_media_roots(tmp_path, [films]))
    assert choose_media_roots(tmp_path, None) == (films,)
    assert capsys.readouterr().out == ""

    remember_media_roots(tmp_path, choose_media_roots(tmp_path, [other]))
    assert choose_media_roots(tmp_path, []) == (other,)
    assert capsys.readouterr().out == f"media roots are now {other}; they were {films}\n"


def test_a_root_that_is_not_mounted_stays_a_root(tmp_path, films):
    remember_media_roots(tmp_path, [films])
    films.rmdir()

    assert choose_media_roots(tmp_path, None) == (films,)


@pytest.mark.parametrize("content", ["", "[]", '{"roots": []}', '{"media_roots": 3}', "\x00"])
def test_a_broken_note_is_one_clear_error(tmp_path, content):
    (tmp_path / "media_roots.json").write_text(content)

    with pytest.raises(CliError, match=r"media_roots\.json cannot be read"):
        remembered_media_roots(tmp_path)


def test_what_is_given_is_noted_before_the_start_and_only_then(clipbert, tmp_path, films):
    """Port 1.2.3.4 is nobody's here, so that nothing starts."""
    data = tmp_path / "data"

    clipbert("up", "--data", data, "--media-root", tmp_path / "nothing", code=1)
    assert not data.exists()
    clipbert(
        *("up", "--data", data, "--device", "cpu", "--host", "1.2.3.4"),
        *("--media-root", films),
        code=1,
    )

    assert remembered_media_roots(data) == (films,)


@pytest.fixture
def library(sessions, tmp_path, films):
    """A film under the root, one by a link into it, one uploaded, and two elsewhere."""
    (tmp_path / "link").symlink_to(films)
    (tmp_path / "films 100%!").mkdir()
    places = [films / "a.mp4", tmp_path / "link" / "b.mp4", tmp_path / "films 100%!" / "c.mp4"]
    with sessions.begin() as session:
        videos = VideoRepository(session)
        for number, place in enumerate([*places, tmp_path / "d é.mp4"]):
            videos.create(uri=place.as_uri(), sha256=str(number))
        videos.create(uri="upload:e.mp4", sha256="e", blob_key="media/e")
    return sessions


def test_videos_under_no_root_are_found_by_where_they_really_lie(library, tmp_path, films):
    outside = {str(tmp_path / "films 100%!" / "c.mp4"), str(tmp_path / "d é.mp4")}

    def found(*roots):
        looked = outside_media_roots(library, roots)
        assert looked.is_all
        return set(looked.paths)

    assert found(films) == outside
    assert found(tmp_path / "link") == outside
    assert found(tmp_path) == set()
    assert len(found()) == 4


def test_of_a_large_library_some_videos_are_looked_at(sessions, films, monkeypatch):
    with sessions.begin() as session:
        session.add_all(
            Video(uri=f"file:///elsewhere/{number}", sha256=str(number)) for number in range(4000)
        )
        session.flush()
        session.execute(text("ANALYZE videos"))
    monkeypatch.setattr(media_roots, "LOOKED_AT", 1000)

    outside = outside_media_roots(sessions, [films])

    assert not outside.is_all
    assert 300 < len(outside.paths) < 2500
    assert "of 1000 videos that were looked at lie under no media root" in describe_outside(outside)


def test_the_doctor_names_a_video_that_no_root_holds(
    library, database_url, tmp_path, films, monkeypatch
):
    monkeypatch.setenv("STORE_DATABASE_URL", database_url)
    monkeypatch.setenv("STORE_BLOB_URL", tmp_path.as_uri())
    monkeypatch.setenv("STORE_MEDIA_ROOTS", str(films))
    found = check_media(tmp_path)
    monkeypatch.setenv("STORE_MEDIA_ROOTS", str(tmp_path))

    assert found.text.startswith("2 of the videos lie under no media root, such as /")
    assert found.cure is not None
    assert check_media(tmp_path).cure is None
