"""Scripts on a connection that a thread keeps."""

import os
import threading
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from app.core.celery import celery_app
from app.worker.broker import _thread, broker_client, kept_lua_script, results_client

_echo = kept_lua_script("return ARGV[1]")


def echo(text: str) -> bytes:
    """Return what Redis answers."""
    answer: bytes = _echo(results_client(), [], [text])
    return answer


def connection() -> Any:
    """Return the connection of this thread."""
    assert _thread.kept
    return _thread.kept.connection


def test_an_answer_that_was_not_read_is_not_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert echo("first") == b"first"
    with monkeypatch.context() as patched:

        def interrupted(**_: Any) -> None:
            raise SoftTimeLimitExceeded

        patched.setattr(connection(), "read_response", interrupted)
        with pytest.raises(SoftTimeLimitExceeded):
            echo("second")
    assert echo("third") == b"third"


def test_a_connection_that_redis_closed_is_replaced() -> None:
    assert echo("first") == b"first"
    (address,) = connection()._sock.getsockname()[1:2]
    clients = results_client().client_list()
    (peer,) = [client["addr"] for client in clients if client["addr"].endswith(f":{address}")]
    results_client().client_kill(peer)
    assert echo("second") == b"second"
    assert echo("third") == b"third"


def test_a_script_that_redis_forgot_is_sent_again() -> None:
    assert echo("first") == b"first"
    results_client().script_flush()
    assert echo("second") == b"second"


def test_a_child_process_opens_a_connection_of_its_own() -> None:
    assert echo("parent") == b"parent"
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, b"kept" if _thread.kept else b"none")
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        assert answer.read() == b"none"


def test_a_thread_that_ends_gives_its_connection_back() -> None:
    client = results_client()

    def run() -> None:
        _echo(client, [], ["thread"])

    def free() -> int:
        return len(client.connection_pool._get_free_connections())

    thread = threading.Thread(target=run)
    client.ping()
    before = free()
    thread.start()
    thread.join()
    assert free() == before


def test_a_client_of_the_broker_does_not_share_a_connection_with_a_consumer() -> None:
    # Consumes the replies, on a channel that stays in the application's pool.
    celery_app.control.ping(timeout=0.2)
    for number in range(3):
        with broker_client() as client:
            assert client.echo(str(number)) == str(number).encode()
