"""The figures as Markdown tables and as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.learning.shape_questions import KINDS
from benchmarks.learning.shape_tables import REFERENCE, RETRIEVAL_TEST_CLIPS, TEST_CLIPS

Figures = Mapping[str, Any]


def to_markdown(figures: Figures) -> str:
    """Write all tables."""
    parts = [f"Measured on {figures['machine']}, {figures['date']}.", ""]
    if "easy_vqa" in figures:
        parts += _easy_vqa(figures["easy_vqa"])
    if "moving_shapes" in figures:
        parts += _moving_shapes(figures["moving_shapes"])
    return "\n".join(parts) + "\n"


def draw(figures: Figures, path: Path) -> None:
    """Draw accuracy on the moving shapes against test clips, a line a training."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shapes = figures["moving_shapes"]
    for name, training in _of_questions(shapes).items():
        by_clips = training["accuracy"][training["aggregation"]]
        axes.plot(
            TEST_CLIPS,
            [100 * by_clips[str(num_clips)]["all"] for num_clips in TEST_CLIPS],
            marker="o",
            label=f"trained with {name}",
        )
    for (name, baseline), style in zip(shapes["baselines"].items(), (":", "--"), strict=True):
        axes.axhline(100 * baseline["all"], color="gray", linestyle=style, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(TEST_CLIPS, [str(num_clips) for num_clips in TEST_CLIPS])
    axes.set_xlabel("test clips")
    axes.set_ylabel("right answers, %")
    axes.set_title("Questions about moving shapes, held-out videos")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, format="png")


def _easy_vqa(result: Figures) -> list[str]:
    rows = [
        ["pictures", str(result["num_pictures"])],
        [
            "questions, to learn from and held out",
            f"{result['num_train']}, {result['num_holdout']}",
        ],
        ["indexing", f"{result['index_seconds']:.0f} s"],
        ["importing the labels", f"{result['import_seconds']:.0f} s"],
        ["training", f"{result['training_seconds']:.0f} s"],
        ["evaluation", f"{result['evaluation_seconds']:.0f} s"],
        ["question only", _percent(result["question_only"])],
        ["**right answers**", f"**{_percent(result['accuracy'])}**"],
        ["decision", result["decision"]],
    ]
    return ["## easy-vqa", "", *_table(["what", "figure"], rows), ""]


def _moving_shapes(result: Figures) -> list[str]:
    lines = ["## Moving shapes", ""]
    lines += [
        f"{result['num_pictures']} pictures to learn from first, then {result['num_train_videos']} "
        f"videos with {result['num_train_questions']} questions; "
        f"{result['num_holdout_videos']} videos held out with "
        f"{result['num_holdout_questions']} questions.",
        "",
        *_table(
            ["baseline", "all", *KINDS],
            [
                [name, *(_percent(baseline[kind]) for kind in ("all", *KINDS))]
                for name, baseline in result["baselines"].items()
            ],
        ),
        "",
    ]
    questions = _of_questions(result)
    if questions:
        lines += [
            "Right answers by test clips, from the same weights, aggregated as trained. All but "
            "the first went on from the model that saw pictures alone:",
            "",
            *_table(
                ["trained with", *(f"{k} test" for k in TEST_CLIPS), "training"],
                [
                    [name]
                    + [
                        _percent(training["accuracy"][training["aggregation"]][str(k)]["all"])
                        for k in TEST_CLIPS
                    ]
                    + [f"{training['seconds']:.0f} s"]
                    for name, training in questions.items()
                ],
            ),
            "",
        ]
    if REFERENCE in questions:
        lines += _reference(questions[REFERENCE])
    captions = result["trainings"].get("captions")
    if captions is not None:
        lines += [
            f"Captions to videos, {result['num_holdout_videos']} held-out videos, every pair "
            f"scored; training {captions['seconds']:.0f} s, from the model of the questions:",
            "",
            *_table(
                ["test clips", "R@1", "R@5", "R@10"],
                [
                    [str(k), *(_percent(captions["recall"][str(k)][f"R@{r}"]) for r in (1, 5, 10))]
                    for k in RETRIEVAL_TEST_CLIPS
                ],
            ),
            "",
        ]
    return lines


def _reference(training: Figures) -> list[str]:
    accuracy = training["accuracy"]
    kinds = accuracy[training["aggregation"]]
    return [
        f"Trained with {REFERENCE}, by kind of question:",
        "",
        *_table(
            ["kind", *(f"{k} test" for k in TEST_CLIPS)],
            [[kind, *(_percent(kinds[str(k)][kind]) for k in TEST_CLIPS)] for kind in KINDS],
        ),
        "",
        "The same weights, aggregated otherwise when tested:",
        "",
        *_table(
            ["aggregation", *(f"{k} test" for k in TEST_CLIPS)],
            [
                [how, *(_percent(by_clips[str(k)]["all"]) for k in TEST_CLIPS)]
                for how, by_clips in accuracy.items()
            ],
        ),
        "",
    ]


def _of_questions(result: Figures) -> dict[str, Figures]:
    trainings: Mapping[str, Figures] = result["trainings"]
    return {name: each for name, each in trainings.items() if "accuracy" in each}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
