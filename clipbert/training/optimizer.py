"""The authors' AdamW, and which parameter is stepped how.

Their formula is one of its own, and torch.optim.AdamW does not reproduce it: after five steps 12 %
of the weights differ by more than 1e-4, the worst by 2.5e-3. Two things are different: epsilon is
added outside the bias correction, and the weights decay after the step, not before it.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

BETAS = (0.9, 0.98)
EPSILON = 1e-6
_CNN_PREFIXES = ("backbone.", "grid_encoder.")
_GRID_PREFIX = "grid_encoder."
_UNDECAYED = ("bias", "LayerNorm.weight")
# torch's kernel corrects the moments for the first steps in its way; at so late a step no more.
_LATE_STEP = 1e9


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are stepped alike.

    Attributes:
        name: "transformer", "grid_encoder" or "cnn", and "decayed" or "undecayed", with a slash.
        parameters: by name, in the model's order.
        learning_rate: base, which the schedule multiplies.
        weight_decay: of a step at learning rate 1.
    """

    name: str
    learning_rate: float
    weight_decay: float
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)

    def to_torch(self) -> dict[str, Any]:
        """Return the group in the form that torch's optimisers take."""
        return {
            "name": self.name,
            "params": list(self.parameters.values()),
            "lr": self.learning_rate,
            "weight_decay": self.weight_decay,
        }


def group_parameters(
    model: nn.Module,
    *,
    learning_rate: float,
    cnn_learning_rate: float,
    grid_encoder_factor: float = 1.0,
    weight_decay: float,
    cnn_weight_decay: float,
) -> list[ParameterGroup]:
    """Sort a network's parameters as the authors do.

    Biases and LayerNorms are not decayed. What is frozen is in no group.

    Args:
        model: a Network.
        learning_rate: of the embeddings, the cross-encoder and the heads.
        cnn_learning_rate: of the backbone.
        grid_encoder_factor: the grid encoder's is cnn_learning_rate times this.
        weight_decay: of all but the CNN.
        cnn_weight_decay: of backbone and grid encoder.

    Returns:
        Six groups, of which some may be empty: transformer, grid encoder and the rest of the CNN,
        each with and without decay. The authors have two more, which are always empty.
    """
    rates = {
        "transformer": (learning_rate, weight_decay),
        "grid_encoder": (cnn_learning_rate * grid_encoder_factor, cnn_weight_decay),
        "cnn": (cnn_learning_rate, cnn_weight_decay),
    }
    groups = {}
    for part, (rate, decay) in rates.items():
        for kind, group_decay in (("decayed", decay), ("undecayed", 0.0)):
            name = f"{part}/{kind}"
            groups[name] = ParameterGroup(name, rate, group_decay)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = "undecayed" if any(part in name for part in _UNDECAYED) else "decayed"
            groups[f"{_part(name)}/{kind}"].parameters[name] = parameter
    return list(groups.values())


class AuthorsAdamW(torch.optim.Optimizer):
    """AdamW as the authors' code computes it, in one pass over the weights.

    With moments m and v after step t, and the learning rate lr:

        p <- p - lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + epsilon)
        p <- p - lr * weight_decay * p

    Args:
        groups: dicts of torch's form, with "params", "lr" and "weight_decay".
        betas: of the two moments.
        epsilon: added to sqrt(v).

    Source: the optimiser of the authors' code (Lei et al., CVPR 2021), which is that of the first
    BERT implementation in PyTorch, with bias correction.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        betas: tuple[float, float] = BETAS,
        epsilon: float = EPSILON,
    ) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "betas": betas, "eps": epsilon})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step all parameters that have a gradient; arguments as torch.optim.Optimizer.step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for step, parameters in self._by_step(group["params"]):
                self._step(group, step, parameters)
        return loss

    def _by_step(self, parameters: list[nn.Parameter]) -> Iterator[tuple[int, list[nn.Parameter]]]:
        """Count a step of each parameter with a gradient; those of one count belong together."""
        counted: dict[int, list[nn.Parameter]] = {}
        for parameter in parameters:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["step"] = 0
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["step"] += 1
            counted.setdefault(state["step"], []).append(parameter)
        yield from counted.items()

    def _step(self, group: dict[str, Any], step: int, parameters: list[nn.Parameter]) -> None:
        beta1, beta2 = group["betas"]
        correction = math.sqrt(1 - beta2**step) / (1 - beta1**step)
        # The kernel decays first: decay and step then commute if the step is made so much smaller.
        kept = 1 - group["lr"] * group["weight_decay"]
        late = torch.full((), _LATE_STEP, device=parameters[0].device)
        adam(
            _tensors(parameters),
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [self.state[parameter]["exp_avg"] for parameter in parameters],
            [self.state[parameter]["exp_avg_sq"] for parameter in parameters],
            [],
            [late for _ in parameters],
            fused=True,
            amsgrad=False,
            decoupled_weight_decay=True,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"] * correction * kept,
            weight_decay=group["weight_decay"] / (correction * kept),
            eps=group["eps"],
            maximize=False,
        )


def _tensors(parameters: list[nn.Parameter]) -> list[Tensor]:
    return list(parameters)


def _part(name: str) -> str:
    if name.startswith(_GRID_PREFIX):
        return "grid_encoder"
    return "cnn" if name.startswith(_CNN_PREFIXES) else "transformer"
