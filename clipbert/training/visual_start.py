"""Where a model whose visual tokens mix words begins: with tokens that vary as words do.

The mixtures of all clips are nearly the same: what sets one apart is a small part of each number.
A cross-encoder that was trained on text alone hardly sees it, and learns what is to be seen only
after it has learned to amplify it. So before the first step the visual embeddings are set by the
statistics of some of the clips: every dimension then has the mean and the deviation of a word's.

This is data-dependent initialisation (Kraehenbuehl et al., ICLR 2016; Salimans and Kingma, NeurIPS
2016), for the one layer that joins two trained parts. docs/decisions/0005 has what it changes.
"""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from clipbert.model.network import Network
from clipbert.training.batch import collate
from clipbert.training.dataset import Draw, Item
from clipbert.training.objective import Objective

_NUM_CLIPS = 256  # of pictures of one kind; their 12,544 cells tell means and deviations of 384
_LEAST_STD = 0.1  # of a normalised dimension: one that hardly varies is not blown up


def fit_visual_embeddings(model: Network, tokens: Tensor) -> None:
    """Set type embedding and LayerNorm of the visual embeddings by the tokens they will read.

    Afterwards what comes out of the LayerNorm has, over these tokens, the mean and the standard
    deviation of the text embeddings of all words, dimension by dimension.

    Args:
        model: changed in place; its row, column, frame and clip embeddings are taken to be zero,
            as those of a model that was never trained are.
        tokens: (N, h, w, D) of clips, as encode_pixels gives them.
    """
    visual, text = model.visual_embeddings, model.text_embeddings
    weights = visual.LayerNorm.weight
    cells = tokens.to(weights.device, torch.float32).flatten(0, 2)  # (N * h * w, D)
    with torch.no_grad():
        mean = cells.mean(dim=0)
        apart = functional.layer_norm(cells - mean, weights.shape, eps=visual.LayerNorm.eps)
        deviations, means = torch.std_mean(apart, dim=0)
        words = text.word_embeddings.weight + text.token_type_embeddings.weight[0]
        word_deviations, word_means = torch.std_mean(text.LayerNorm(words), dim=0)
        scale = word_deviations / deviations.clamp_min(_LEAST_STD)
        visual.token_type_embeddings.weight[0] = -mean
        weights.copy_(scale)
        visual.LayerNorm.bias.copy_(word_means - means * scale)


def grids_of_some(
    objective: Objective, examples: Dataset[Item], *, count: int, num_clips: int, pad_id: int
) -> Tensor:
    """Return the visual tokens of a few hundred clips of a run.

    Args:
        objective: whose CNN looks at them, if they were not stored.
        examples: of the run; those that fail are passed over.
        count: of the examples, at least 1.
        num_clips: K, of each example.
        pad_id: of the tokenizer.

    Returns:
        (N, h, w, D); the same for the same run, however often it is interrupted. Empty if all
        examples failed.
    """
    num_samples = min(count, max(1, _NUM_CLIPS // num_clips))
    tokens: list[Tensor] = []
    objective.eval()  # the CNN's batch norm is not to learn from this
    with torch.no_grad():
        for sample in range(num_samples):
            batch = collate([examples[Draw(0, 0, sample * count // num_samples)]], pad_id=pad_id)
            if batch.num_clips:
                tokens.append(objective.visual_tokens(batch)[0])  # (K, h, w, D)
    return torch.cat(tokens) if tokens else torch.empty(0)
