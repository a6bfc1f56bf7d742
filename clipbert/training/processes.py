"""The processes that train one model together; mostly there is one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import distributed
from transformers import TrainingArguments

Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """This process among those that torchrun started.

    Attributes:
        number: of this one, from 0.
        count: how many there are.
    """

    number: int = 0
    count: int = 1

    @classmethod
    def of(cls, arguments: TrainingArguments) -> "Processes":
        """Read what transformers found in the environment."""
        return cls(arguments.process_index, arguments.world_size)

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes files."""
        return self.number == 0

    def from_main(self, compute: Callable[[], Result]) -> Result:
        """Compute something in the main process only, and give it to all.

        An error ends the main process, and torchrun then ends the others.
        """
        if self.count == 1:
            return compute()
        box: list[Result | None] = [compute() if self.is_main else None]
        distributed.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]  # the main process filled it

    def gather(self, value: Result) -> list[Result]:
        """Return the values of all processes, in their order, to each."""
        if self.count == 1:
            return [value]
        values: list[Result | None] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # every process filled its place

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.count > 1:
            distributed.barrier()
