from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
import torch
from videos import cut, frame_number, write_counting_video

from clipbert.datasets.annotation import WHOLE, Annotation, Span
from clipbert.datasets.annotation_files import AnnotationFile
from clipbert.datasets.media_folder import MediaFolder
from clipbert.datasets.selection import select_annotations
from clipbert.errors import AnnotationError, ConfigError
from clipbert.model.text import TextTokenizer
from clipbert.sampling.plan import SamplingPlan
from clipbert.training.batch import collate
from clipbert.training.dataset import (
    Draw,
    DroppedExample,
    ExampleDataset,
    StepSampler,
    fingerprint,
    group_by_video,
)
from clipbert.training.draws import generator_at
from clipbert.training.example_clips import MediaClipReader
from clipbert.training.losses import IGNORED
from clipbert.training.recipe import Recipe
from clipbert.training.task_texts import VideoTexts, WordMasking, make_task_texts
from clipbert.training.usable_videos import find_videos

TOKENIZER = TextTokenizer.from_characters()
PLAN = SamplingPlan("segments", num_clips=2, frames_per_clip=2, clip_seconds=0.2)


def caption(line: int, video: str, text: str = "") -> Annotation:
    return Annotation(line, video, text or f"text {line}")


def ids_of(*texts: str) -> list[list[int]]:
    return [TOKENIZER.encode([text], max_length=64)[0][0].tolist() for text in texts]


def texts_of(recipe: Recipe, annotations, *, answers=(), seed: int = 0, first: int = 0):
    """Make the texts of the first annotation's video."""
    texts = make_task_texts(recipe, annotations, tokenizer=TOKENIZER, answers=answers)
    own = [each for each in annotations if each.video == annotations[first].video]
    return texts(own, generator_at(seed))


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, num_frames in (("a", 50), ("b", 20), ("c", 30)):
        write_counting_video(folder / f"{name}.mp4", num_frames, fps=10)
    return folder


@pytest.fixture
def dataset(videos):
    annotations = [caption(1, "a"), caption(2, "b"), caption(3, "c"), caption(4, "a")]
    found = find_videos(MediaFolder(videos), "abc", PLAN, num_threads=2)
    return ExampleDataset(
        group_by_video(annotations, texts_per_video=1),
        MediaClipReader(found.usable, PLAN, max_side_px=64),
        random_clips=True,
        texts=make_task_texts(Recipe("retrieval"), annotations, tokenizer=TOKENIZER),
        seed=3,
    )


def test_annotations_are_grouped_by_video_and_cut_into_examples():
    annotations = [caption(1, "b"), caption(2, "a"), caption(3, "b"), caption(4, "b")]

    examples = group_by_video(annotations, texts_per_video=2)

    lines = [(example.video, [each.line for each in example.annotations]) for example in examples]
    assert lines == [("b", [1, 3]), ("b", [4]), ("a", [2])]


def test_annotations_of_different_parts_are_never_seen_together():
    annotations = [
        caption(1, "a"),
        replace(caption(2, "a"), start_seconds=1.0),
        caption(3, "a"),
        replace(caption(4, "a"), start_seconds=1.0),
    ]

    examples = group_by_video(annotations, texts_per_video=4)

    assert [[each.line for each in example.annotations] for example in examples] == [[1, 3], [2, 4]]
    assert [example.span for example in examples] == [WHOLE, Span(1.0, None)]


def test_frames_of_a_part_are_taken_from_it(videos):
    annotations = [
        replace(caption(1, "a"), start_seconds=1.0, end_seconds=2.0),
        caption(2, "b"),
        replace(caption(3, "a"), start_seconds=9.0),  # after the end
    ]
    found = find_videos(MediaFolder(videos), "ab", PLAN, num_threads=2)
    dataset = ExampleDataset(
        group_by_video(annotations, texts_per_video=1),
        MediaClipReader(found.usable, PLAN, max_side_px=96),
        random_clips=True,
        texts=make_task_texts(Recipe("retrieval"), annotations, tokenizer=TOKENIZER),
        seed=3,
    )

    numbers = [
        frame_number(frame)
        for epoch in range(10)
        for clip in dataset[Draw(0, epoch, 0)].clips.frames.numpy()
        for frame in clip
    ]
    late = dataset[Draw(0, 0, 2)]

    assert 10 <= min(numbers) < 14
    assert 16 < max(numbers) <= 20
    assert isinstance(late, DroppedExample)
    assert late.video.code == "outside_video"


def test_fingerprint_tells_other_examples():
    examples = group_by_video([caption(1, "a"), caption(2, "b")], texts_per_video=1)

    assert fingerprint(examples) == fingerprint(list(examples))
    assert fingerprint(examples) != fingerprint(examples[::-1])
    assert fingerprint(examples) != fingerprint(examples[:1])


def test_draws_depend_on_their_place_alone():
    first = generator_at(1, "clips", 0, 5).random()
    generator_at(1, "texts", 0, 5).random()

    assert generator_at(1, "clips", 0, 5).random() == first
    assert len({generator_at(*place).random() for place in ((1, 0, 5), (1, 5, 0), (2, 0, 5))}) == 3


def test_an_example_is_the_same_whatever_was_loaded_before(dataset):
    alone = dataset[Draw(0, 1, 2)]
    dataset[Draw(0, 0, 0)]

    again = dataset[Draw(9, 1, 2)]

    assert torch.equal(again.clips.frames, alone.clips.frames)
    assert again.texts.token_ids == alone.texts.token_ids


def test_clips_are_drawn_anew_in_each_epoch_within_their_segments(dataset):
    shown = set()
    for epoch in range(8):
        frames = dataset[Draw(0, epoch, 0)].clips.frames  # (K, T, H, W, 3)
        numbers = [[frame_number(frame.numpy()) for frame in clip] for clip in frames]
        assert all(0 <= number < 25 for number in numbers[0])
        assert all(25 <= number < 50 for number in numbers[1])
        assert all(last - first in (1, 2, 3) for first, last in numbers)
        shown.add(tuple(map(tuple, numbers)))

    assert len(shown) > 4


def test_places_are_the_clips_middles(dataset):
    example = dataset[Draw(0, 0, 0)]

    torch.testing.assert_close(example.clips.places, torch.tensor([0.25, 0.75]))


def test_a_video_that_fails_later_is_dropped_by_name(dataset, videos):
    (videos / "b.mp4").unlink()

    item = dataset[Draw(0, 0, 2)]

    assert isinstance(item, DroppedExample)
    assert (item.video.video, item.video.code) == ("b", "media_not_found")


def test_missing_and_broken_videos_are_found_before_training(videos):
    cut(videos / "a.mp4", videos / "broken.mp4", share=0.5)
    seen = []

    found = find_videos(
        MediaFolder(videos),
        ["a", "broken", "missing", "a"],
        PLAN,
        num_threads=2,
        progress=lambda done, total: seen.append((done, total)),
    )

    assert set(found.usable) == {"a"}
    assert [(video.video, video.code) for video in found.unusable] == [
        ("broken", "truncated_media"),
        ("missing", "media_not_found"),
    ]
    assert "missing" in found.unusable[1].reason
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_video_without_a_frame_count_is_refused_for_the_authors_plan_only(videos):
    write_counting_video(videos / "stream.ts", 20, fps=10)
    media = MediaFolder(videos)

    theirs = find_videos(media, ["stream"], SamplingPlan("authors"), num_threads=1)
    ours = find_videos(media, ["stream"], PLAN, num_threads=1)

    assert [video.code for video in theirs.unusable] == ["no_frame_count"]
    assert set(ours.usable) == {"stream"}


def test_retrieval_puts_captions_of_other_videos_beside_each():
    annotations = [caption(1, "a", "own one"), caption(2, "b", "other"), caption(3, "a", "own two")]

    texts = texts_of(Recipe("retrieval", negatives=2), annotations)

    expected = ids_of("own one", "other", "other", "own two", "other", "other")
    assert texts.token_ids == expected
    assert texts.targets.tolist() == [1, 0, 0, 1, 0, 0]


def test_negatives_are_drawn_from_all_other_videos_evenly():
    annotations = [caption(number, f"video {number}") for number in range(5)]
    texts = make_task_texts(Recipe("retrieval"), annotations, tokenizer=TOKENIZER)

    drawn = Counter(
        tuple(texts(annotations[:1], generator_at(seed)).token_ids[1]) for seed in range(400)
    )

    assert set(drawn) == set(map(tuple, ids_of("text 1", "text 2", "text 3", "text 4")))
    assert min(drawn.values()) > 60


@pytest.mark.parametrize("task", ["retrieval", "pretraining"])
def test_comparing_videos_takes_two(task):
    recipe = Recipe(task)

    with pytest.raises(ConfigError, match="all of one video"):
        texts_of(recipe, [caption(1, "a"), caption(2, "a")])


def test_pretraining_replaces_texts_by_those_of_other_pictures():
    annotations = [caption(1, "a", "own"), caption(2, "b", "other")]
    recipe = Recipe("pretraining", mask_probability=0.0, mismatch_probability=0.5)

    drawn = []
    for seed in range(200):
        texts = texts_of(recipe, annotations, seed=seed)
        assert texts.token_ids == ids_of("own" if texts.targets.item() else "other")
        assert set(texts.word_labels[0]) == {IGNORED}
        drawn.append(texts.targets.item())

    assert 70 < sum(drawn) < 130


def test_masking_hides_words_as_bert_does():
    ids = TOKENIZER.encode(["abcdefghij " * 50], max_length=500)[0][0].tolist()
    masking = WordMasking(TOKENIZER, probability=0.15)
    special = TOKENIZER.special_ids

    kinds = Counter()
    for seed in range(40):
        read, labels = masking(ids, generator_at(seed))
        for token, seen, label in zip(ids, read, labels, strict=True):
            if label == IGNORED:
                assert seen == token
                kinds["left"] += 1
                continue
            assert label == token
            assert token not in special.values()
            kind = {special["[MASK]"]: "masked", token: "same"}.get(seen, "other")
            assert kind != "other" or seen not in special.values()
            kinds[kind] += 1

    chosen = kinds["masked"] + kinds["same"] + kinds["other"]
    assert chosen / kinds.total() == pytest.approx(0.15, abs=0.01)
    assert kinds["masked"] / chosen == pytest.approx(0.8, abs=0.03)
    assert kinds["other"] / chosen == pytest.approx(0.1, abs=0.03)


def test_questions_have_the_place_of_their_answer():
    annotations = [
        Annotation(1, "a", "what", answer="red"),
        Annotation(2, "a", "how", answer="two"),
    ]

    texts = texts_of(Recipe("qa"), annotations, answers=("two", "red"))

    assert texts.token_ids == ids_of("what", "how")
    assert texts.targets.tolist() == [1, 0]


def test_soft_answers_keep_their_scores_within_the_vocabulary():
    annotations = [
        Annotation(1, "a", "what", answer_scores={"red": 1.0, "pink": 0.3, "rose": 0.6}),
        Annotation(2, "a", "how", answer="red"),
    ]

    texts = texts_of(
        Recipe("qa", loss="bce", aggregation="mean"), annotations, answers=("pink", "red")
    )

    torch.testing.assert_close(texts.targets, torch.tensor([[0.3, 1.0], [0.0, 1.0]]))


def test_choices_are_joined_to_their_question():
    annotations = [
        Annotation(1, "a", "does it", choices=("run", "jump"), right_choice=1),
        Annotation(2, "a", "", choices=("a dog", "a cat"), right_choice=0),
    ]

    texts = texts_of(Recipe("multiple_choice"), annotations)

    assert texts.token_ids == ids_of("does it run", "does it jump", "a dog", "a cat")
    assert texts.targets.tolist() == [1, 0]


def test_counts_are_numbers():
    annotations = [Annotation(1, "a", "how often", count=3)]

    texts = texts_of(Recipe("count", loss="mse", aggregation="mean"), annotations)

    assert texts.targets.dtype == torch.float32
    assert texts.targets.tolist() == [3.0]


def test_texts_are_cut_to_the_recipes_length():
    texts = texts_of(
        Recipe("qa", max_text_tokens=5), [Annotation(1, "a", "what", answer="x")], answers="x"
    )

    assert [len(ids) for ids in texts.token_ids] == [5]


def file_of(tmp_path, task, *annotations) -> AnnotationFile:
    return AnnotationFile(tmp_path / "data.jsonl", "labels", task, annotations)


def test_lines_that_teach_nothing_are_counted(tmp_path):
    file = file_of(
        tmp_path,
        "qa",
        Annotation(1, "a", "what", answer="red"),
        Annotation(2, "a", "what", answer="mauve"),
        Annotation(3, "a", "what"),
        Annotation(4, "a", "what", answer_scores={"mauve": 1.0, "red": 0.3}),
    )

    selection = select_annotations(file, "qa", answers=("red", "blue"))

    assert [each.line for each in selection.annotations] == [1, 4]
    assert selection.left_out == {"with no answer of the vocabulary": 1, "without an answer": 1}


def test_a_split_is_taken_alone(tmp_path):
    file = file_of(
        tmp_path,
        "retrieval",
        Annotation(1, "a", "one", split="train"),
        Annotation(2, "b", "two", split="test"),
    )

    assert [
        each.line for each in select_annotations(file, "retrieval", split="test").annotations
    ] == [2]
    with pytest.raises(AnnotationError, match="no line of the split 'val'"):
        select_annotations(file, "retrieval", split="val")


def test_captions_serve_pretraining_and_retrieval(tmp_path):
    file = file_of(tmp_path, "pretraining", caption(1, "a"))

    assert len(select_annotations(file, "retrieval").annotations) == 1
    with pytest.raises(AnnotationError, match="is for pretraining, the recipe is for qa"):
        select_annotations(file, "qa", answers=("red",))


def test_questions_need_as_many_choices_each(tmp_path):
    file = file_of(
        tmp_path,
        "multiple_choice",
        Annotation(1, "a", "what", choices=("x", "y"), right_choice=0),
        Annotation(2, "a", "what", choices=("x", "y", "z"), right_choice=0),
    )

    with pytest.raises(AnnotationError, match=r"data\.jsonl:2: has 3 choices, line 1 has 2"):
        select_annotations(file, "multiple_choice")


def sampler_of(**changes) -> StepSampler:
    settings = {
        "num_examples": 7,
        "total_steps": 5,
        "videos_per_step": 4,
        "videos_per_forward": 2,
        "seed": 1,
    }
    return StepSampler(**settings | changes)


def test_every_epoch_has_each_example_once_in_an_order_of_its_own():
    draws = [draw for batch in sampler_of(total_steps=7) for draw in batch]

    epochs = [[draw.example for draw in draws if draw.epoch == epoch] for epoch in range(4)]
    assert all(sorted(order) == list(range(7)) for order in epochs)
    assert len({tuple(order) for order in epochs}) == 4


def test_a_pass_is_the_same_wherever_one_begins():
    batches = list(sampler_of())

    assert len(batches) == len(sampler_of()) == 10
    assert list(islice(sampler_of(), 6, None)) == batches[6:]
    assert [batch[0].batch for batch in batches] == list(range(10))


def test_processes_share_the_examples_of_each_step():
    one = list(sampler_of(videos_per_forward=4))
    two = [list(sampler_of(process=number, num_processes=2)) for number in range(2)]

    for step, together in enumerate(one):
        shared = [draw[1:] for process in two for draw in process[step]]
        assert shared == [draw[1:] for draw in together]


def test_a_step_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="4 videos a step cannot be shared by 3 processes"):
        sampler_of(process=0, num_processes=3)


def test_batch_joins_texts_and_clips_of_videos_of_any_size(dataset, videos):
    items = [dataset[Draw(5, 0, index)] for index in (0, 2)]

    batch = collate(items, pad_id=TOKENIZER.pad_id)

    assert batch.number == 5
    assert batch.token_ids.shape == batch.mask.shape == (4, 7)  # [CLS] t e x t 1 [SEP]
    assert batch.video_of_text.tolist() == [0, 0, 1, 1]
    assert batch.targets.tolist() == [1, 0, 1, 0]
    assert batch.word_labels.shape == (0, 0)
    assert batch.num_clips == 2
    assert [clip.shape for clip in batch.clips()] == [(2, 42, 64, 3)] * 4
    for clip, frames in zip(
        batch.clips(), [*items[0].clips.frames, *items[1].clips.frames], strict=True
    ):
        assert torch.equal(torch.from_numpy(clip), frames)


def test_batch_leaves_out_dropped_examples_and_names_them(dataset, videos):
    (videos / "b.mp4").unlink()

    some = collate([dataset[Draw(0, 0, index)] for index in (0, 2)], pad_id=0)
    none = collate([dataset[Draw(1, 0, 2)]], pad_id=0)

    assert len(some.token_ids) == 2
    assert [video.video for video in some.dropped] == ["b"]
    assert (none.number, len(none.token_ids), none.num_clips, none.clips()) == (1, 0, 0, [])
    assert [video.video for video in none.dropped] == ["b"]


def test_padding_is_masked_and_not_to_be_guessed(dataset):
    one = dataset[Draw(0, 0, 0)]
    short, long = ids_of("ab", "abcd")
    texts = VideoTexts([short, long], torch.tensor([1, 0]), [[IGNORED] * 4, [7] * 6])

    batch = collate([replace(one, texts=texts)], pad_id=TOKENIZER.pad_id)

    assert batch.token_ids.tolist() == [[*short, TOKENIZER.pad_id, TOKENIZER.pad_id], long]
    assert batch.mask.tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]
    assert batch.word_labels.tolist() == [[IGNORED] * 6, [7] * 6]


def test_soft_labels_are_not_for_a_loss_of_one_right_answer():
    annotations = [Annotation(1, "a", "what?", answer_scores={"yes": 1.0})]
    recipe = Recipe("qa", loss="ce")

    with pytest.raises(ConfigError, match="must be 'bce', since some questions have soft labels"):
        make_task_texts(recipe, annotations, tokenizer=TOKENIZER, answers=("yes",))
