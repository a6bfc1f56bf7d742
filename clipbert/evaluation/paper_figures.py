"""The paper's results by kind of annotation file, to stand beside ours.

Source: Lei et al., ClipBERT, CVPR 2021, comparison with the state of the art: its best models, with
16 test clips. It does not report counting.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clipbert.datasets.annotation_files import AnnotationKind


@dataclass(frozen=True)
class PaperFigure:
    """One line of the paper's tables.

    Attributes:
        name: data set, and training clips x frames.
        values: recall at 1, 5 and 10 and median rank; or one accuracy; as the paper prints them.
    """

    name: str
    values: tuple[str, ...]


PAPER_FIGURES: Mapping[AnnotationKind, Sequence[PaperFigure]] = {
    "retrieval": (
        PaperFigure("MSRVTT 1k-A, 8 x 2", ("22.0", "46.8", "59.9", "6")),
        PaperFigure("DiDeMo, 8 x 2", ("20.4", "48.0", "60.8", "6")),
        PaperFigure("ActivityNet Captions, 4 x 2", ("21.3", "49.0", "63.5", "6")),
    ),
    "msrvtt_mc": (PaperFigure("MSRVTT-MC, 8 x 2", ("88.2",)),),
    "msrvtt_qa": (PaperFigure("MSRVTT-QA, 8 x 2", ("37.4",)),),
    "tgif_choice": (
        PaperFigure("TGIF-QA action, 1 x 1", ("82.8",)),
        PaperFigure("TGIF-QA transition, 1 x 1", ("87.8",)),
    ),
    "tgif_frameqa": (PaperFigure("TGIF-QA frameQA, 1 x 1", ("60.3",)),),
    "vqa": (PaperFigure("VQA 2.0 test-dev, pictures", ("69.08",)),),
}
