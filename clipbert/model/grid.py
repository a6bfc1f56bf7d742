"""Feature maps -> visual tokens, a grid of half their size."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipbert.model.config import GridEncoderConfig

_POOL = 2


class ConvGridEncoder(nn.Module):
    """The paper's: 3x3 convolution, 2x2 max pooling, then ReLU, in this order."""

    def __init__(self, *, channels: int, hidden_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, hidden_size, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, 2h, 2w) features -> (N, h, w, D)."""
        grid = functional.max_pool2d(self.conv(features), _POOL).relu()  # (N, D, h, w)
        return grid.permute(0, 2, 3, 1)


class ClassMixtureGridEncoder(nn.Module):
    """Describes in words what each cell shows: a classifier, and the mean embedding of its classes.

    Each cell's class probabilities mix the classes' word embeddings, so that the tokens lie where
    the cross-encoder's text does, and a text model reads them without ever having seen a picture.

    Args:
        channels: C of the features.
        num_classes: of the classifier, which is a parameter: `classifier`.
        hidden_size: D.

    The word embeddings are a buffer, `class_embeddings` (num_classes, D), loaded with the weights.
    """

    class_embeddings: Tensor

    def __init__(self, *, channels: int, num_classes: int, hidden_size: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(channels, num_classes)
        self.register_buffer("class_embeddings", torch.zeros(num_classes, hidden_size))

    def class_logits(self, features: Tensor) -> Tensor:
        """(..., C) features of cells or of whole frames -> (..., num_classes)."""
        return cast("Tensor", self.classifier(features))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, 2h, 2w) features -> (N, h, w, D)."""
        logits = self.class_logits(features.permute(0, 2, 3, 1))  # (N, 2h, 2w, classes)
        probabilities = logits.float().softmax(dim=-1).to(logits.dtype)
        tokens = probabilities @ self.class_embeddings  # (N, 2h, 2w, D)
        grid = functional.avg_pool2d(tokens.permute(0, 3, 1, 2), _POOL)  # (N, D, h, w)
        return grid.permute(0, 2, 3, 1)


GridEncoder = ConvGridEncoder | ClassMixtureGridEncoder


def build_grid_encoder(
    config: GridEncoderConfig, *, channels: int, hidden_size: int
) -> GridEncoder:
    """Make the grid encoder of a configuration, with random weights.

    Args:
        config: which kind.
        channels: C of the backbone's features.
        hidden_size: D.
    """
    if config.kind == "class_mixture":
        return ClassMixtureGridEncoder(
            channels=channels, num_classes=config.num_classes, hidden_size=hidden_size
        )
    return ConvGridEncoder(channels=channels, hidden_size=hidden_size)
