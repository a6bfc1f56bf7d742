"""What two processes that compute on the same cores lose to each other, by how threads wait.

    python benchmarks/two_on_cpu.py [--rows 500] [--rounds 3]

Steps a stack of layers of clipbert-mini's width in one process and in two at once, with OpenMP as
it comes (its threads spin while they wait) and with OMP_WAIT_POLICY=PASSIVE, as workers.app sets
it, in turn. Prints steps a second and the ratio.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping

_SECONDS = 5.0
_LAYERS, _WIDTH = 12, 384
_POLICIES: Mapping[str, Mapping[str, str]] = {
    "as it comes": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=500, help="of the layers' input")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(_steps_per_second(arguments.rows))
        return
    rounds = [
        {
            (name, num_processes): sum(_run(num_processes, policy, arguments.rows))
            for name, policy in _POLICIES.items()
            for num_processes in (1, 2)
        }
        for _ in range(arguments.rounds)
    ]
    for num_processes, words in ((1, "alone"), (2, "two at once, together")):
        spinning, passive = (
            statistics.median(each[name, num_processes] for each in rounds) for name in _POLICIES
        )
        ratio = statistics.median(
            each["passive", num_processes] / each["as it comes", num_processes] for each in rounds
        )
        print(
            f"{words}: as it comes {spinning:.2f} steps/s, passive {passive:.2f}, ratio {ratio:.2f}"
        )


def _run(num_processes: int, policy: Mapping[str, str], rows: int) -> list[float]:
    environment = {name: text for name, text in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, __file__, "--child", "--rows", str(rows)]
    processes = [
        subprocess.Popen(command, env={**environment, **policy}, stdout=subprocess.PIPE, text=True)
        for _ in range(num_processes)
    ]
    return [float(process.communicate()[0]) for process in processes]


def _steps_per_second(rows: int) -> float:
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = [
        nn.Sequential(
            nn.Linear(_WIDTH, 4 * _WIDTH),
            nn.GELU(),
            nn.Linear(4 * _WIDTH, _WIDTH),
            nn.LayerNorm(_WIDTH),
        )
        for _ in range(_LAYERS)
    ]
    model, given = nn.Sequential(*layers), torch.randn(rows, _WIDTH)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(given).float().pow(2).mean()
        model.zero_grad()
        loss.backward()

    step()
    begun, num_steps = time.monotonic(), 0
    while time.monotonic() - begun < _SECONDS:
        step()
        num_steps += 1
    return num_steps / (time.monotonic() - begun)


if __name__ == "__main__":
    main()
