import json
import os
import socket
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from cli.commands.index import collect_files
from cli.errors import CliError
from cli.folder_walk import Reason, walk
from tests.cli.fake_api import batch

ID = "0198c0df-5555-7aaa-8bbb-1234567890ab"


@pytest.fixture
def library(tmp_path):
    for name in ("b.mp4", "a.MOV", "notes.txt", ".hidden.mp4", "sub/c.webm", "sub/deep/d.jpg"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "e.mp4").touch()
    return tmp_path


def names(files, folder):
    return [str(file.relative_to(folder)) for file in files]


def test_a_folder_gives_its_videos_and_images_at_any_depth(library):
    files = collect_files([library], every_file=False).files

    assert names(files, library) == ["a.MOV", "b.mp4", "sub/c.webm", "sub/deep/d.jpg"]


def test_all_takes_every_file_that_is_not_hidden(library):
    files = collect_files([library], every_file=True).files

    assert "notes.txt" in names(files, library)
    assert ".hidden.mp4" not in names(files, library)


def test_a_file_named_by_itself_is_taken_whatever_it_is(library):
    files = collect_files([library / "notes.txt", library / ".hidden.mp4"], every_file=False).files

    assert names(files, library) == ["notes.txt", ".hidden.mp4"]


def test_a_file_that_is_found_twice_is_taken_once(library):
    files = collect_files([library / "b.mp4", library, library / "sub"], every_file=False).files

    assert names(files, library) == ["b.mp4", "a.MOV", "sub/c.webm", "sub/deep/d.jpg"]


def test_relative_paths_become_absolute(library, monkeypatch):
    monkeypatch.chdir(library / "sub")

    assert collect_files([Path("../b.mp4")], every_file=False).files == [library / "b.mp4"]


def test_a_path_that_does_not_exist_is_said(tmp_path):
    with pytest.raises(CliError, match=r"nowhere\.mp4 does not exist"):
        collect_files([tmp_path / "nowhere.mp4"], every_file=False)


def test_files_skipped_for_their_extension_are_counted(library):
    (library / "moving.gif").touch()

    found = collect_files([library], every_file=False)

    assert found.num_skipped == 1  # notes.txt; hidden files are nobody's videos
    assert library / "moving.gif" in found.files


def test_a_folder_that_may_not_be_looked_into_is_noted(open_folder, as_nobody):
    (open_folder / "a.mp4").touch()
    (open_folder / "closed").mkdir(mode=0)

    with as_nobody():
        found = collect_files([open_folder], every_file=False)

    assert found.files == [open_folder / "a.mp4"]
    assert [each.path for each in found.unreadable] == [open_folder / "closed"]


def test_a_path_that_may_not_be_looked_at_is_said(open_folder, as_nobody):
    (open_folder / "closed").mkdir(mode=0)

    with as_nobody(), pytest.raises(CliError, match="cannot be read: Permission denied"):
        collect_files([open_folder / "closed" / "v.mp4"], every_file=False)


def tree(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_what_systems_keep_for_themselves_is_left_out_with_all_below(tmp_path):
    systems = ("@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
    hidden = (".Trash-1000", ".Trashes", ".Spotlight-V100", ".fseventsd")
    tree(tmp_path, "good.mp4", "._good.mp4", "sub/@EADIR/c.mp4")
    tree(tmp_path, *(f"{name}/deep/b.mp4" for name in (*systems, *hidden)))

    found = collect_files([tmp_path], every_file=True)

    assert names(found.files, tmp_path) == ["good.mp4"]
    assert found.skipped == {Reason.SYSTEM_FOLDER: 6, Reason.HIDDEN: 5}


def test_a_system_folder_that_is_named_itself_is_taken(tmp_path):
    tree(tmp_path, "lost+found/a.mp4")

    assert len(collect_files([tmp_path / "lost+found"], every_file=False).files) == 1


def test_what_no_worker_could_read_is_told_at_once_by_its_path(tmp_path):
    tree(tmp_path, "good.mp4")
    (tmp_path / "gone.mp4").symlink_to("nowhere")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.mp4"))
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")

    found = collect_files([tmp_path], every_file=False)

    assert names(found.files, tmp_path) == ["good.mp4"]
    assert {each.path.name: each.message for each in found.unreadable} == {
        "gone.mp4": "a link that leads nowhere",
        "loop.mp4": "Too many levels of symbolic links",
        "pipe.mp4": "it is a named pipe, not a file",
        "s.mp4": "it is a socket, not a file",
        "zero.mp4": "it is a device, not a file",
    }


def test_a_path_too_long_for_the_api_is_told_and_the_others_are_taken(tmp_path):
    long = tmp_path.joinpath(*(["ü" * 100] * 8))  # each letter is six in a URI
    tree(tmp_path, "good.mp4", str(long / "deep.mp4"))

    found = collect_files([tmp_path], every_file=False)

    assert names(found.files, tmp_path) == ["good.mp4"]
    assert [each.path for each in found.unreadable] == [long / "deep.mp4"]
    assert "too long" in found.unreadable[0].message


def test_a_tree_deeper_than_pythons_stack_is_walked(tmp_path):
    folder = tmp_path
    for _ in range(1200):
        folder /= "d"
    before = os.open("/", os.O_RDONLY)
    try:
        os.chdir(tmp_path)
        for _ in range(1200):  # step by step: mkdir(parents=True) is recursive itself
            os.mkdir("d")  # noqa: PTH102
            os.chdir("d")
        Path("deep.mp4").touch()
    finally:
        os.fchdir(before)
        os.close(before)

    assert collect_files([tmp_path], every_file=False).files == [folder / "deep.mp4"]
    remove_deep(tmp_path)


def remove_deep(folder):
    """pytest's own clean-up is recursive."""
    subprocess.run(["rm", "-rf", folder / "d"], check=True)


def test_links_to_folders_are_counted_and_not_followed(tmp_path):
    tree(tmp_path, "real/a.mp4")
    (tmp_path / "again").symlink_to("real")
    (tmp_path / "real" / "up").symlink_to("..")

    found = collect_files([tmp_path], every_file=False)

    assert names(found.files, tmp_path) == ["real/a.mp4"]
    assert found.skipped == {Reason.LINKED_FOLDER: 2}


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (os.mkfifo, "is a named pipe, not a file or folder"),
        (lambda path: path.symlink_to("nowhere"), "is a link that leads nowhere"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
)
def test_what_is_named_itself_and_is_no_file_is_refused_by_its_name(clipbert, tmp_path, make, why):
    make(tmp_path / "v.mp4")

    said = clipbert("index", tmp_path / "v.mp4", code=1)

    assert f"v.mp4 {why}" in said.err or f"v.mp4 cannot be read: {why}" in said.err


def test_a_walk_holds_the_names_of_one_folder_at_a_time(tmp_path):
    for i in range(40):
        tree(tmp_path, *(f"{i:02}/{k:02}.mp4" for k in range(25)))

    def peak_bytes():
        walked = walk([tmp_path], every_file=False)
        next(walked)
        tracemalloc.start()
        number = sum(1 for _ in walked)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert number == 999
        return peak

    # The least of some: threads that other tests left allocate too.
    assert min(peak_bytes() for _ in range(5)) < 60_000  # 1,000 paths alone are 200 kB


def test_the_same_tree_gives_the_same_order(tmp_path):
    tree(tmp_path, "b/z.mp4", "b/a.mp4", "a/x.mp4", "y.mp4", "c/d/e.mp4")

    assert names(collect_files([tmp_path], every_file=False).files, tmp_path) == [
        *("y.mp4", "a/x.mp4", "b/a.mp4", "b/z.mp4", "c/d/e.mp4")
    ]


def test_skipped_files_are_counted_by_reason_and_named_on_request(clipbert, library):
    counted = clipbert("index", library, "--dry-run").err
    named = clipbert("index", library, "--dry-run", "--list-skipped").err

    assert (
        "skipped: 2 (hidden), 1 (not the extension of a video or an image); "
        "--all takes files of any extension; --list-skipped names them" in counted
    )
    assert "notes.txt" not in counted
    assert f"skipped {library}/notes.txt: not the extension of a video or an image" in named
    assert f"skipped {library}/.git: hidden" in named


def test_a_dry_run_lists_the_files_and_asks_nobody(api, clipbert, library):
    said = clipbert("index", library, "--dry-run")

    files = ["a.MOV", "b.mp4", "sub/c.webm", "sub/deep/d.jpg"]
    assert said.out.splitlines() == [f"{library}/{name}" for name in files]
    assert "4 files would be indexed" in said.err
    assert api.requests == []


def test_tags_go_with_paths_and_with_uploads(api, clipbert, library):
    def create(request):
        items = json.loads(request.body)["items"]
        outside = [i for i, item in enumerate(items) if "/sub/" in item["uri"]]
        if outside:
            errors = [{"index": i, "code": "outside_media_roots"} for i in outside]
            return 403, {"code": "outside_media_roots", "detail": "outside", "errors": errors}
        return 202, batch(ID)

    api.answer("POST", "/v1/batches", create)
    api.answer("POST", "/v1/videos", {"id": "job"}, 202)

    clipbert("index", library, "--tag", "summer", "--tag", "sea")

    items = json.loads(api.sent("POST", "/v1/batches")[-1].body)["items"]
    assert [item["tags"] for item in items] == [["summer", "sea"]] * 2
    for upload in api.sent("POST", "/v1/videos"):
        assert upload.body.count(b'name="tags"\r\n\r\n') == 2
        assert b"\r\n\r\nsummer\r\n" in upload.body


def test_more_files_than_a_batch_may_have_are_several_batches(api, clipbert, library, monkeypatch):
    monkeypatch.setattr("cli.commands.index.MOST_ITEMS", 3)
    ids = iter([ID, ID[:-1] + "c"])
    api.answer("POST", "/v1/batches", lambda _: (202, batch(next(ids))))

    said = clipbert("index", library)

    sizes = [len(json.loads(each.body)["items"]) for each in api.sent("POST", "/v1/batches")]
    assert sizes == [3, 1]
    assert f"batch {ID}: 3 files" in said.out
    assert f"batch {ID[:-1]}c: 1 file\n" in said.out
