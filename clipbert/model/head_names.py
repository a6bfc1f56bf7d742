"""Names of heads, and so of tasks: a task is called by the head that does it."""

from typing import Literal

EvaluatedTask = Literal["retrieval", "qa", "multiple_choice", "count"]
HeadName = Literal[EvaluatedTask, "pretraining"]
