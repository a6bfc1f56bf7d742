"""Processes that start warm: forks of one that has loaded all that workers and trainers need.

To start one costs as much as many of the tests, most of it for loading torch and transformers. How
they start cold is seen in end_to_end, workers/test_processes.py and clipbert/runs/test_forks.py.
"""

from typing import Final

from clipbert.runs.fork_client import ForkClient

FORKS: Final = ForkClient(["tests.warm_modules"], idle_seconds=600)
