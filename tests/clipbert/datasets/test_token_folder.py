import json
from collections import Counter

import pytest
import torch
from safetensors.torch import save_file

from clipbert.datasets.annotation import WHOLE, Span
from clipbert.datasets.token_folder import TokenFolder, choose_clips
from clipbert.datasets.token_index import StoredVideo, write_index
from clipbert.errors import AnnotationError, MediaNotFound, OutsideVideo, TokensUnusable
from clipbert.training.draws import generator_at


@pytest.fixture
def folder(tmp_path):
    """Video `v` of five clips of two seconds; clip k has the tokens k, and picture `p` one."""
    (tmp_path / "elsewhere").mkdir()
    tokens = torch.arange(5.0)[:, None, None, None].expand(5, 2, 2, 3).half().contiguous()
    save_file({"tokens": tokens, "vectors": torch.eye(5, 4)}, tmp_path / "v.safetensors")
    save_file({"tokens": tokens[:1]}, tmp_path / "elsewhere" / "p.safetensors")
    save_file({"vectors": torch.ones(1, 4).half()}, tmp_path / "elsewhere" / "p-vectors")
    write_index(
        tmp_path,
        {
            "v": StoredVideo(
                tmp_path / "v.safetensors", tuple((2.0 * k, 2.0 * k + 2) for k in range(5)), 10.0
            ),
            "p": StoredVideo(
                tmp_path / "elsewhere/p.safetensors",
                ((0, 0),),
                0.0,
                tmp_path / "elsewhere/p-vectors",
            ),
        }.items(),
    )
    return tmp_path


def test_chosen_clips_are_read_in_the_order_asked_for(folder):
    tokens = TokenFolder(folder).read("v", [3, 0, 3])

    assert tokens.shape == (3, 2, 2, 3)
    assert tokens[:, 0, 0, 0].tolist() == [3, 0, 3]


def test_names_are_those_of_annotation_files(folder):
    tokens = TokenFolder(folder)

    assert len(tokens) == 2
    assert tokens.find("videos/v.mp4") == tokens.find("v")
    assert tokens.grid("v") == (2, 2, 3)


def test_recall_vectors_lie_beside_the_tokens_or_in_a_file_of_their_own(folder):
    tokens = TokenFolder(folder)

    assert tokens.read_vectors("v", [1]).tolist() == [[0, 1, 0, 0]]
    assert tokens.read_vectors("p", [0]).dtype == torch.float32


def test_files_may_be_named_relative_to_the_folder(tmp_path, folder):
    line = {"video": "w", "file": "v.safetensors", "clips": [[0, 1]] * 5, "duration_seconds": 5}
    (folder / "index.jsonl").write_text(json.dumps(line) + "\n")

    assert TokenFolder(folder).read("w", [4])[0, 0, 0, 0] == 4


@pytest.mark.parametrize(
    ("span", "rows"),
    [
        (WHOLE, [0, 1, 2, 3, 4]),
        (Span(4.0, 6.0), [2]),
        (Span(3.0, 6.5), [1, 2, 3]),
        (Span(7.0, None), [3, 4]),
        (Span(None, 99.0), [0, 1, 2, 3, 4]),
    ],
)
def test_clips_of_a_part_are_those_that_overlap_it(folder, span, rows):
    assert TokenFolder(folder).find("v").clips_in(span) == rows


def test_a_part_between_clips_has_the_nearest_one(tmp_path):
    video = StoredVideo(tmp_path, ((0.0, 1.0), (8.0, 9.0)), 10.0)

    assert video.clips_in(Span(2.0, 3.0)) == [0]
    assert video.clips_in(Span(6.0, 7.0)) == [1]


def test_a_part_after_the_end_is_an_error_but_not_of_a_picture(folder):
    tokens = TokenFolder(folder)

    with pytest.raises(OutsideVideo, match=r"the video ends at 10 s, before 10\.5 s"):
        tokens.find("v").clips_in(Span(10.5, 11.0))
    assert tokens.find("p").clips_in(Span(3.0, 4.0)) == [0]
    assert tokens.find("p").places([0]) == (0.5,)
    assert tokens.find("v").places([0, 4]) == (0.1, 0.9)


def test_fixed_clips_are_the_middles_of_equal_groups():
    assert choose_clips(range(6), 2, plan="segments", generator=None) == [1, 4]
    assert choose_clips(range(9), 3, plan="keyframes", generator=None) == [1, 4, 7]
    assert choose_clips([4, 5, 7], 3, plan="segments", generator=None) == [4, 5, 7]
    assert choose_clips(range(8), 4, plan="authors", generator=None) == [0, 2, 4, 6]


def test_random_clips_are_one_of_each_group():
    generator = generator_at(1)
    drawn = [choose_clips(range(7), 3, plan="segments", generator=generator) for _ in range(300)]

    seen = [Counter(row[group] for row in drawn) for group in range(3)]
    assert [set(counts) for counts in seen] == [{0, 1}, {2, 3}, {4, 5, 6}]
    assert all(count > 60 for counts in seen for count in counts.values())


def test_authors_clips_are_any_but_none_twice():
    generator = generator_at(1)
    drawn = [choose_clips(range(4), 2, plan="authors", generator=generator) for _ in range(200)]

    assert {tuple(row) for row in drawn} == {
        (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3),
    }  # fmt: skip


@pytest.mark.parametrize("plan", ["segments", "authors"])
def test_a_clip_comes_twice_only_if_there_are_too_few(plan):
    assert choose_clips([2, 3], 4, plan="segments", generator=None) == [2, 2, 3, 3]
    for seed in range(20):
        rows = choose_clips([2, 3], 4, plan=plan, generator=generator_at(seed))
        assert len(rows) == 4
        assert set(rows) <= {2, 3}
        assert rows == sorted(rows)


def test_missing_and_damaged_tokens_are_errors_of_their_video(folder):
    tokens = TokenFolder(folder)
    (folder / "v.safetensors").write_bytes(b"nothing")

    with pytest.raises(TokensUnusable, match="there are no visual tokens of x in"):
        tokens.find("x")
    with pytest.raises(TokensUnusable, match=r"v\.safetensors cannot be read"):
        tokens.read("v", [0])
    (folder / "v.safetensors").unlink()
    with pytest.raises(TokensUnusable, match=r"v\.safetensors cannot be read"):
        tokens.grid("v")
    with pytest.raises(TokensUnusable, match="cannot be read"):
        tokens.read("p", [1])


def test_as_many_rows_as_clips_must_be_stored(folder):
    line = {"video": "v", "file": "v.safetensors", "clips": [[0, 1]], "duration_seconds": 1}
    (folder / "index.jsonl").write_text(json.dumps(line))

    with pytest.raises(TokensUnusable, match=r"holds tokens \(5, 2, 2, 3\) of 1 clips"):
        TokenFolder(folder).grid("v")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "is not JSON"),
        ('{"file": "v"}', "video is missing"),
        ('{"video": "v", "file": "v", "clips": []}', "clips must be a list of pairs of seconds"),
        ('{"video": "v", "file": "v", "clips": [[1]]}', "clips must be a list of pairs"),
        ('{"video": "v", "file": "v", "clips": [[0, "x"]]}', "clips must be a list of pairs"),
    ],
)
def test_a_wrong_line_of_the_index_is_named(tmp_path, line, problem):
    good = '{"video": "u", "file": "u", "clips": [[0, 1]], "duration_seconds": 1}'
    (tmp_path / "index.jsonl").write_text(f"{good}\n{line}\n")

    with pytest.raises(AnnotationError, match=rf"index\.jsonl:2: {problem}"):
        TokenFolder(tmp_path)


def test_a_video_stands_in_the_index_once(tmp_path):
    line = '{"video": "u", "file": "u", "clips": [[0, 1]], "duration_seconds": 1}\n'
    (tmp_path / "index.jsonl").write_text(line * 2)

    with pytest.raises(AnnotationError, match="video stands there twice: u"):
        TokenFolder(tmp_path)


def test_a_folder_without_an_index_is_none(tmp_path):
    with pytest.raises(
        MediaNotFound, match=r"is not a folder of visual tokens: it has no index\.json"
    ):
        TokenFolder(tmp_path)
