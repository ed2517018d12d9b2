"""Publish one message to `bench-0` as kombu writes it: `python -m benchmarks.project.message BYTES`."""

import os
import sys

from kombu import Connection, Producer, Queue


def main() -> None:
    """Publish a message whose body is a string of that length."""
    with Connection(os.environ["CELERY_BROKER_URL"]) as connection:
        queue = Queue("bench-0", routing_key="bench-0")
        producer = Producer(connection.channel(), serializer="json")
        producer.publish("x" * int(sys.argv[1]), routing_key="bench-0", declare=[queue])


main()
