import json
import os
import subprocess
import sys

import pytest

from workers.app import HARD_LIMIT_SECONDS, VISIBILITY_TIMEOUT_SECONDS, app
from workers.dispatch import FINETUNE, LOOK_TASKS, QUEUES, RECONCILE_TASK


def test_every_task_but_a_finetune_has_its_hard_limit():
    app.loader.import_default_modules()
    ours = {name: task for name, task in app.tasks.items() if name.startswith("workers.")}

    limits = {name: task.time_limit for name, task in ours.items()}
    assert limits == HARD_LIMIT_SECONDS | {LOOK_TASKS[FINETUNE]: None}
    assert set(LOOK_TASKS.values()) <= set(ours)
    assert max(HARD_LIMIT_SECONDS.values()) + 300 <= VISIBILITY_TIMEOUT_SECONDS


def test_a_finetune_has_no_time_limit_and_is_acknowledged_before_it_begins():
    app.loader.import_default_modules()
    finetune = app.tasks[LOOK_TASKS[FINETUNE]]
    others = [app.tasks[name] for queue, name in LOOK_TASKS.items() if queue != FINETUNE]

    assert (finetune.time_limit, finetune.soft_time_limit) == (None, None)
    assert finetune.acks_late is False  # longer than the visibility timeout, so that matters
    assert all(task.acks_late for task in others)


def test_there_are_no_queues_but_the_declared_ones():
    assert {queue.name for queue in app.conf.task_queues} == set(QUEUES)
    assert app.conf.task_create_missing_queues is False


def test_messages_and_results_carry_nothing_but_a_ring():
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_ignore_result is True
    assert app.conf.result_backend is None


def test_beat_rings_the_reconciler_and_keeps_no_file():
    entry = app.conf.beat_schedule["reconcile"]

    assert entry["task"] == RECONCILE_TASK
    assert entry["schedule"] <= 5
    assert entry["options"]["expires"] > entry["schedule"]


def test_the_parent_of_a_worker_imports_no_torch():
    code = (
        "import sys, json; from workers.app import app; app.loader.import_default_modules();"
        "print(json.dumps(sorted(m for m in ('torch', 'av', 'transformers') if m in sys.modules)))"
    )

    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert "torch" not in json.loads(answer.stdout)
    assert "transformers" not in json.loads(answer.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("given", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_openmp_waits_without_spinning_unless_it_is_told_to(given, found):
    others = {name: text for name, text in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment = others | ({} if given is None else {"OMP_WAIT_POLICY": given})
    # libgomp prints what it goes by when it is loaded, with torch.
    code = "import workers.app, torch"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"OMP_DISPLAY_ENV": "TRUE"},
        capture_output=True,
        text=True,
        check=True,
    ).stderr

    assert f"OMP_WAIT_POLICY = '{found}'" in told
