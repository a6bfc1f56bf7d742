"""What the service trains by unless it is told otherwise: few settings, chosen by the data's size.

Imports no torch: a request for a finetune is checked where there is none.
"""

import math

from clipbert.model.head_names import HeadName
from clipbert.training.recipe import Recipe

_VIDEOS_PER_STEP = 32
_VIDEOS_PER_FORWARD = 8
# So many examples are seen in all, within these bounds: a few labels many times, many a few times.
_EXAMPLES_SEEN = 120_000
_LEAST_STEPS = 300
_FEWEST_EPOCHS, _MOST_EPOCHS = 4.0, 60.0
_LINES_OF_METRICS = 200


def default_recipe(task: HeadName, num_examples: int) -> Recipe:
    """Choose how the service finetunes a model from stored visual tokens.

        default_recipe("qa", 40_000).epochs  ->  4.0

    Args:
        task: retrieval, qa or multiple_choice.
        num_examples: annotations to learn from, at least 1.

    Returns:
        A recipe with a frozen visual side, which takes frame size and text length from the model
        that it starts from. About four epochs for tens of thousands of examples, more for few, but
        never more than 60. `dataclass_from_json` or Recipe.replace change fields.

    Raises:
        ConfigError: the task is none that finetunes have.
    """
    epochs = min(max(_EXAMPLES_SEEN / num_examples, _FEWEST_EPOCHS), _MOST_EPOCHS)
    # Where sixty epochs would go beyond what a few hundred steps learn, the steps decide.
    steps = math.ceil(epochs * num_examples / _VIDEOS_PER_STEP)
    if steps < _LEAST_STEPS:
        epochs = min(_MOST_EPOCHS, _LEAST_STEPS * _VIDEOS_PER_STEP / num_examples)
        steps = math.ceil(epochs * num_examples / _VIDEOS_PER_STEP)
    return Recipe(
        task,
        visual="frozen",
        plan="segments",
        clips=4,
        frames_per_clip=1,
        inference_clips=8,
        head_std=0.1,  # clipbert-mini is 384 wide
        learning_rate=1e-4,
        epochs=round(epochs, 2),
        videos_per_step=_VIDEOS_PER_STEP,
        videos_per_forward=_VIDEOS_PER_FORWARD,
        negatives=3,
        precision="auto",
        checkpoint_seconds=60.0,
        log_steps=max(1, steps // _LINES_OF_METRICS),
    )
