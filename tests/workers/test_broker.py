"""Messages whose connection to Redis was lost, as a worker meets them: with a real Redis."""

import os
import signal

import kombu
import pytest
import redis

from embedded.servers import EmbeddedServices
from workers.app import app

QUEUE = "ingest"


@pytest.fixture
def own_redis(tmp_path):
    with EmbeddedServices.start_redis_only(tmp_path) as servers:
        yield servers


@pytest.fixture
def in_hand(own_redis):
    """A message that was received and not acknowledged, and its connection."""
    with kombu.Connection(own_redis.redis_url) as connection:
        queue = app.amqp.queues[QUEUE].bind(connection.default_channel)
        queue.declare()
        kombu.Producer(connection).publish({}, exchange=queue.exchange, routing_key=QUEUE)
        message = queue.get()
        assert message is not None
        yield message, connection


def kill(servers):
    with redis.Redis.from_url(servers.redis_url) as client:
        os.kill(client.info("server")["process_id"], signal.SIGKILL)


@pytest.mark.parametrize("settle", ["ack", "reject", "requeue"])
@pytest.mark.parametrize("is_back", [False, True])
def test_what_ends_after_its_connection_is_forgotten(own_redis, in_hand, settle, is_back):
    message, connection = in_hand
    kill(own_redis)
    if is_back:
        while not own_redis.restart_dead():
            pass

    # What Celery does when it finds that a connection is lost.
    connection.collect(socket_timeout=1)
    connection.close()
    getattr(message, settle)()


def test_what_ends_before_that_is_acknowledged(own_redis, in_hand):
    message, _ = in_hand

    message.ack()

    with redis.Redis.from_url(own_redis.redis_url) as client:
        assert client.keys("*unacked*") == []
