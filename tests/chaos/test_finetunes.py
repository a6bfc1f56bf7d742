"""Trainers, workers and servers are killed during a finetune, which ends as if they were not.

All with real processes. The weights are compared with those of a run that nobody disturbed.
"""

import os
import signal
from contextlib import suppress

import psutil
import pytest
import redis

from embedded.account import choose_account
from embedded.servers import EmbeddedServices
from store.blobs import open_blobs
from store.database import make_sessions, upgrade_schema
from store.jobs.state import JobState
from tests.workers.finetunes import (
    add_library,
    ask_for_finetune,
    events_of,
    read_finetune,
    run_folder,
    weights_of,
)
from tests.workers.service import child_of, running_service, wait_for
from workers.finetuning.finetuning import finetune_next

pytestmark = pytest.mark.slow

SHORT_LEASE = {"lease_seconds": "3", "heartbeat_seconds": "0.5"}
STEPS = 60
LONG = {"steps": STEPS, "checkpoint_steps": 10}


def trainers(service, finetune_id):
    """List the processes that work in a finetune's folder."""
    folder = str(run_folder(service, finetune_id))
    return [each for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == folder]


def has_checkpoint(service, finetune_id):
    folder = run_folder(service, finetune_id) / "run" / "checkpoints"
    return any(folder.glob("checkpoint-*/trainer_state.json"))


_undisturbed: list[bytes] = []


def undisturbed_weights(service, context, tmp_path):
    """Run the finetune of these tests with nothing in its way: once, for every library is alike."""
    add_library(service, tmp_path, num_holdout=0)
    if not _undisturbed:
        finetune_id = ask_for_finetune(service, **LONG)
        finetune_next(context)
        assert service.job(finetune_id).state == JobState.SUCCEEDED
        _undisturbed.append(weights_of(service, finetune_id))
    return _undisturbed[0]


def assert_ended_as_undisturbed(service, finetune_id, weights):
    finetune, job = read_finetune(service, finetune_id)
    assert job.state == JobState.SUCCEEDED
    assert finetune.report["training"]["step"] == STEPS
    assert weights_of(service, finetune_id) == weights
    assert trainers(service, finetune_id) == []


def test_a_killed_trainer_changes_nothing(service, context, tmp_path):
    weights = undisturbed_weights(service, context, tmp_path)
    finetune_id = ask_for_finetune(service, **LONG)
    service.start_worker("finetune")
    wait_for(lambda: has_checkpoint(service, finetune_id))

    for trainer in trainers(service, finetune_id):
        with suppress(psutil.NoSuchProcess):
            trainer.kill()
    job = service.wait_for_state(finetune_id, JobState.SUCCEEDED)

    assert (job.attempt, job.worker_losses) == (1, 0)
    (lost,) = events_of(service, finetune_id, "trainer_lost")
    assert (lost.data["how"], lost.data["losses"]) == ("signal 9", 1)
    assert_ended_as_undisturbed(service, finetune_id, weights)


@pytest.mark.parametrize("victim", ["parent", "child"])
def test_a_killed_workers_finetune_goes_on_in_another(service, context, tmp_path, victim):
    weights = undisturbed_weights(service, context, tmp_path)
    finetune_id = ask_for_finetune(service, **LONG)
    doomed = service.start_worker("finetune", **SHORT_LEASE)
    wait_for(lambda: has_checkpoint(service, finetune_id))
    orphans = trainers(service, finetune_id)
    assert orphans

    if victim == "parent":
        service.kill(doomed)
    else:
        child_of(doomed).kill()
        doomed.terminate()  # otherwise it would be the one that goes on
    _, alive = psutil.wait_procs(orphans, timeout=120)
    assert alive == []
    service.start_reconciler(**SHORT_LEASE)
    service.start_worker("finetune", **SHORT_LEASE)
    job = service.wait_for_state(finetune_id, JobState.SUCCEEDED)

    (lost,) = events_of(service, finetune_id, "lost")
    # It got further than it was when it was lost, so that its losses are counted anew.
    assert (job.attempt, job.worker_losses, lost.data["losses"]) == (2, 0, 1)
    assert_ended_as_undisturbed(service, finetune_id, weights)


def is_stopped(process):
    try:
        return process.status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def test_a_worker_that_wakes_up_too_late_writes_nothing(service, context, tmp_path):
    weights = undisturbed_weights(service, context, tmp_path)
    finetune_id = ask_for_finetune(service, **LONG)
    zombie = service.start_worker("finetune", **SHORT_LEASE)
    wait_for(lambda: has_checkpoint(service, finetune_id))
    worker, trainer = [psutil.Process(zombie.pid), child_of(zombie)], trainers(service, finetune_id)
    frozen = [*worker, *trainer]
    for process in frozen:
        with suppress(psutil.NoSuchProcess):  # what a trainer had just forked may be gone already
            process.suspend()
    wait_for(lambda: all(is_stopped(process) for process in worker))  # a signal takes its time
    wait_for(lambda: any(is_stopped(process) for process in trainer))

    service.start_reconciler(**SHORT_LEASE)
    service.start_worker("finetune", **SHORT_LEASE)
    job = service.wait_for_state(finetune_id, JobState.SUCCEEDED)
    for process in frozen:
        with suppress(psutil.NoSuchProcess):
            process.resume()
    wait_for(lambda: "job.lease_lost" in service.logs())

    assert job.lease_token == 2
    assert service.job(finetune_id).finished_at == job.finished_at
    assert_ended_as_undisturbed(service, finetune_id, weights)


def test_a_redis_that_forgets_everything_disturbs_no_finetune(service, context, tmp_path):
    weights = undisturbed_weights(service, context, tmp_path)
    finetune_id = ask_for_finetune(service, **LONG)
    service.start_reconciler()
    service.start_worker("finetune")
    wait_for(lambda: has_checkpoint(service, finetune_id))

    with redis.Redis.from_url(service.redis_url) as client:
        client.flushall()
    waiting = ask_for_finetune(service, **LONG)
    service.wait_for_state(finetune_id, JobState.SUCCEEDED)

    assert service.job(finetune_id).attempt == 1
    assert_ended_as_undisturbed(service, finetune_id, weights)
    service.wait_for_state(waiting, JobState.SUCCEEDED)  # nobody rang for it but the reconciler


@pytest.fixture
def own_servers(data_folder):
    """Servers that nothing else uses."""
    with EmbeddedServices.start(data_folder) as servers:
        upgrade_schema(servers.database_url)
        yield servers


@pytest.fixture
def own_service(own_servers, data_folder, media_folder):
    sessions = make_sessions(own_servers.database_url)
    with running_service(
        database_url=own_servers.database_url,
        redis_url=own_servers.redis_url,
        blobs=open_blobs((data_folder / "blobs").as_uri()),
        data_folder=data_folder,
        sessions=sessions,
        media_roots=(media_folder,),
    ) as service:
        yield service
    sessions.kw["bind"].dispose()


def kill_servers(servers):
    with redis.Redis.from_url(servers.redis_url) as client:
        os.kill(client.info("server")["process_id"], signal.SIGKILL)
    cluster = choose_account(servers.data_folder).folder / "postgres" / "cluster"
    os.kill(int((cluster / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)


def test_killed_servers_disturb_no_finetune(own_servers, own_service, tmp_path):
    service, context = own_service, own_service.context()
    weights = undisturbed_weights(service, context, tmp_path)
    context.close()
    finetune_id = ask_for_finetune(service, **LONG)
    service.start_worker("finetune")
    wait_for(lambda: has_checkpoint(service, finetune_id))

    kill_servers(own_servers)
    wait_for(own_servers.restart_dead)
    wait_for(lambda: not own_servers.restart_dead())
    job = service.wait_for_state(finetune_id, JobState.SUCCEEDED)

    assert (job.attempt, job.worker_losses) == (1, 0)
    assert_ended_as_undisturbed(service, finetune_id, weights)
