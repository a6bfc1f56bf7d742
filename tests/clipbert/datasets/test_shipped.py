"""Files in the form in which the data sets ship them; each small one has its set's real fields."""

import json

import pytest

from clipbert.datasets.annotation_files import read_annotations
from clipbert.datasets.shipped import HEAD_BYTES, is_lines
from clipbert.errors import AnnotationError

MSRVTT_QA = [
    {
        "answer": "couch",
        "category_id": 14,
        "id": 158581,
        "question": "what are three people sitting on?",
        "video_id": 6513,
    },
    {
        "answer": "crowd",
        "category_id": 14,
        "id": 158584,
        "question": "who is cheering?",
        "video_id": 6514,
    },
    {"answer": "ride", "category_id": 3, "id": 9, "question": "did he ride?", "video_id": 6514},
]
MSRVTT = {
    "info": {"contributor": "Microsoft", "version": "1.0"},
    "videos": [{"category": 9, "video_id": "video0", "start time": 137.7, "split": "train"}],
    "sentences": [
        {"caption": "a car is shown", "video_id": "video0", "sen_id": 0},
        {"caption": "a man drives", "video_id": "video0", "sen_id": 1},
    ],
}
ACTIVITYNET = {
    "v_QOlSCBRmfWY": {
        "duration": 82.73,
        "timestamps": [[0.83, 19.86], [17.37, 60.81]],
        "sentences": ["A young woman is seen standing.", " The girl continues dancing."],
    },
    "v_ehGHCYKzyZ8": {"duration": 61.7, "timestamps": [[0, 9]], "sentences": ["Weights."]},
}
DIDEMO = [
    {
        "annotation_id": 1,
        "description": "the dog jumps",
        "video": "12345@N00_1_abc.avi",
        "times": [[0, 0]],
        "num_segments": 6,
    },
    {
        "annotation_id": 2,
        "description": "a man comes",
        "video": "12345@N00_1_abc.avi",
        "times": [[2, 3]],
        "num_segments": 6,
    },
]
COCO = {
    "info": {"year": 2014},
    "images": [{"id": 318556, "file_name": "COCO_train2014_000000318556.jpg"}],
    "annotations": [{"image_id": 318556, "id": 48, "caption": "A very clean bathroom.\n"}],
    "licenses": [],
}
VISUAL_GENOME = [
    {"id": 1, "regions": [{"region_id": 1382, "image_id": 1, "phrase": "the clock is green"}]},
    {"id": 2, "regions": [{"region_id": 9, "image_id": 2, "phrase": "a sign"}]},
]
ACTION = (
    "gif_name\tquestion\ta1\ta2\ta3\ta4\ta5\tanswer\tvid_id\tkey\n"
    "tumblr_nk1\tWhat does the man do 3 times ?\tnod\tstep\twave\tjump\tclap\t2\tACTION1\t7\n"
)
FRAME = (
    "gif_name\tquestion\tanswer\ttype\tvid_id\tdescription\tkey\n"
    "tumblr_nk2\twhat is the color of the ball ?\tred\t2\tFRAMEQA1\ta red ball\t8\n"
)
COUNT = (
    "gif_name\tquestion\tanswer\tvid_id\tkey\r\n"
    "tumblr_nk3\tHow many times does the cat tap ?\t4\tCOUNT1\t9\r\n"
)
JSFUSION = 'key,vid_key,video_id,sentence\nret0,msr9770,video9770,"a person, connecting"\n'


def read(tmp_path, content, name="data.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), newline="")
    return read_annotations(path)


@pytest.mark.parametrize("size", [20, 100_000])
@pytest.mark.parametrize("first", ['"question": "%s"', '"choices": ["%s"]', '"video": "a%s"'])
def test_one_line_of_any_length_is_a_line(first, size):
    line = "{" + first % ("x" * size) + ', "video": "a.mp4"}'

    assert is_lines(line.encode()[:HEAD_BYTES])


def test_msrvtt_qa_is_an_array_whose_answer_types_are_the_first_words(tmp_path):
    file = read(tmp_path, MSRVTT_QA)

    assert (file.kind, file.task) == ("msrvtt_qa", "qa")
    assert [(one.video, one.answer, one.answer_type) for one in file.annotations] == [
        ("video6513", "couch", "what"),
        ("video6514", "crowd", "who"),
        ("video6514", "ride", None),
    ]


@pytest.mark.parametrize("indent", [None, 2], ids=["one line", "many lines"])
@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (MSRVTT, "retrieval", [("video0", "a car is shown"), ("video0", "a man drives")]),
        (
            ACTIVITYNET,
            "retrieval",
            [
                (
                    "v_QOlSCBRmfWY",
                    "A young woman is seen standing. The girl continues dancing.",
                ),
                ("v_ehGHCYKzyZ8", "Weights."),
            ],
        ),
        (DIDEMO, "retrieval", [("12345@N00_1_abc", "the dog jumps a man comes")]),
        (COCO, "captions", [("000000318556", "A very clean bathroom.")]),
        (VISUAL_GENOME, "captions", [("1", "the clock is green"), ("2", "a sign")]),
    ],
    ids=["msrvtt", "activitynet", "didemo", "coco", "visual genome"],
)
def test_captions_are_read_as_their_data_set_ships_them(tmp_path, content, kind, said, indent):
    file = read(tmp_path, json.dumps(content, indent=indent))

    assert file.kind == kind
    assert [(one.video, one.text) for one in file.annotations] == said


def test_tgif_qa_is_tables(tmp_path):
    action = read(tmp_path, ACTION, "Train_action_question.csv").annotations[0]
    frame = read(tmp_path, FRAME, "Train_frameqa_question.csv").annotations[0]
    count = read(tmp_path, COUNT, "Train_count_question.csv").annotations[0]

    assert (action.video, action.choices[2], action.right_choice) == ("tumblr_nk1", "wave", 2)
    assert (frame.answer, frame.answer_type) == ("red", "color")
    assert (count.text, count.count) == ("How many times does the cat tap ?", 4)


def test_msrvtts_test_split_is_a_table_with_commas(tmp_path):
    file = read(tmp_path, JSFUSION, "MSRVTT_JSFUSION_test.csv")

    assert [(one.video, one.text) for one in file.annotations] == [
        ("video9770", "a person, connecting")
    ]


def test_an_array_of_our_own_lines_is_read_as_these(tmp_path):
    lines = [{"video": "a", "question": "is it?", "answer": "yes"}] * 3

    assert len(read(tmp_path, lines).annotations) == 3


def test_a_long_array_is_read_in_pieces_and_to_its_end(tmp_path):
    lines = [{"video": f"v{n}", "caption": f"clip {n} " + "é" * 90} for n in range(9_000)]
    text = json.dumps(lines, ensure_ascii=False)
    assert len(text) > 1 << 20

    file = read(tmp_path, text)

    assert [one.video for one in file.annotations] == [f"v{n}" for n in range(9_000)]
    assert {len(one.text) for one in file.annotations[1_000:]} == {len("clip 1000 ") + 90}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"questions": [{"image_id": 1, "question_id": 2, "question": "?"}]}, "one of VQA's two"),
        ({"annotations": [{"question_id": 2, "answers": []}]}, "one of VQA's two files"),
        (json.dumps({"clips": [], "words": []}, indent=1), "one JSON object with clips, words"),
        ('[{"video": "a", "caption": "b"}', "its array breaks off"),
        ('[{"video": "a", "caption": "b"} {"video": "a", "caption": "b"}]', "a comma is missing"),
        ('[{"video": "a", "caption": "b"}, 2]', "item 2 is not an object"),
        ([{"id": 1, "regions": [{"image_id": 1}]}], "has a record of another form: 'phrase'"),
        ("gif_name\tquestion\tanswer\na\tb\n", "line 2 has another number of columns"),
        pytest.param(
            'gif_name\tquestion\tanswer\na\t"' + 30_000 * "b?\tc\na\t",
            "a table that is damaged: field larger than field limit",
            id="a quote that is not closed",
        ),
    ],
)
def test_what_is_of_no_known_form_is_named(tmp_path, content, complaint):
    with pytest.raises(AnnotationError, match=complaint):
        read(tmp_path, content)


def test_damaged_lines_are_still_named_as_lines(tmp_path):
    whole = '{"video": "a", "caption": "b"}\n'

    with pytest.raises(AnnotationError, match=r"data\.json:1: is not JSON"):
        read(tmp_path, '{"video": "a", "caption"\n' + whole)
