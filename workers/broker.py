"""How kombu treats a ring whose connection to Redis was lost.

kombu 5.7 puts back what was not acknowledged when it closes a connection, and acknowledges what
ends later, over a connection that it has taken apart by then: an AttributeError, which ends the
worker and with it what its other children do. A ring needs neither: the rows say what is due, the
reconciler rings for it, and what Redis has still noted comes back once as a ring for nothing.
"""

from kombu.transport import redis


class RingQoS(redis.QoS):
    """Forgets the messages of a channel that is closed."""

    restore_at_shutdown = False

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message, if there still is somebody to tell."""
        if not self.channel.closed:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Refuse a message, if there still is somebody to tell."""
        if not self.channel.closed:
            super().reject(delivery_tag, requeue=requeue)


def forget_what_was_lost() -> None:
    """Have all Redis connections of this process do so, those by TLS and of sentinels too."""
    redis.Channel.QoS = RingQoS
