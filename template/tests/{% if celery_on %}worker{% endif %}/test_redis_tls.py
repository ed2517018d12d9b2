"""Redis behind TLS, as hosting services offer it: everything that connects to it checks whom it talks to."""

import asyncio
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from app.core.config.base import checking_certificates
from app.core.config.celery import CelerySettings, celery_settings
from tests import ROOT

SCRIPT = """
import asyncio
from app.core.celery import celery_app
from app.core.redis import cache
from app.worker import permissions, pipeline

def ask_publisher():
    replies = asyncio.run(pipeline.execute(pipeline.Commands(broker=[("PING",)], after=[("PING",)])))
    for error in pipeline.failures([*replies.broker, *replies.after]):
        raise error

def ask_permissions():
    asked = []
    permissions.missing_permissions = lambda client, _: asked.append(client.ping()) or []
    permissions.require_permissions()
    if len(asked) < 2:
        raise RuntimeError("not asked, or certificate verify failed")

clients = {
    "broker": lambda: celery_app.connection_for_write().default_channel.client.ping(),
    "results": lambda: celery_app.backend.client.ping(),
    "publisher": ask_publisher,
    "cache": cache.sync.ping,
    "permissions": ask_permissions,
}
for name, ping in clients.items():
    try:
        ping()
        print(name, "answered")
    except Exception as error:
        print(name, error)
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that no machine trusts, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("NOT TESTED: there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*command.split(), "-keyout", key, "-out", chain], check=True, capture_output=True)
    return chain, key


@pytest.fixture(scope="module")
def port(certificate: tuple[Path, Path]) -> Iterator[int]:
    """The port of a proxy that speaks TLS and hands on to the tests' Redis."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    behind = urlsplit(celery_settings.broker_url.get_secret_value())

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        server, request = await asyncio.open_connection(behind.hostname, behind.port)
        await asyncio.gather(pump(client, request), pump(server, answer))

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    starting = asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    listening = asyncio.run_coroutine_threadsafe(starting, loop).result(10)
    yield listening.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(listening.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def ask(url: str) -> dict[str, str]:
    """Return what each client of the application says of Redis at this URL, from a process of its own."""
    behind = urlsplit(celery_settings.broker_url.get_secret_value())
    login = f"{behind.netloc.rpartition('@')[0]}@" if "@" in behind.netloc else ""
    names = ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "REDIS_CONNECTION_URL")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env={**os.environ, **dict.fromkeys(names, f"rediss://{login}{url}")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said = (line.partition(" ") for line in done.stdout.splitlines())
    answers = {
        client: text for client, _, text in said if client in {"broker", "results", "publisher", "cache", "permissions"}
    }
    assert len(answers) == 5, done.stdout
    return answers


@pytest.mark.processes
def test_a_trusted_server_answers(certificate: tuple[Path, Path], port: int) -> None:
    said = ask(f"localhost:{port}/0?ssl_ca_certs={certificate[0]}")
    assert set(said.values()) == {"answered"}


@pytest.mark.processes
def test_an_untrusted_server_is_refused_by_each(port: int) -> None:
    said = ask(f"localhost:{port}/0")
    assert all("certificate verify failed" in text for text in said.values()), said


@pytest.mark.processes
def test_a_certificate_for_another_name_is_refused_by_each(certificate: tuple[Path, Path], port: int) -> None:
    said = ask(f"127.0.0.1:{port}/0?ssl_ca_certs={certificate[0]}")
    assert all("certificate verify failed" in text for text in said.values()), said


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("rediss://h/1", "rediss://h/1?ssl_cert_reqs=CERT_REQUIRED"),
        ("rediss://h/1?ssl_ca_certs=/ca", "rediss://h/1?ssl_ca_certs=/ca&ssl_cert_reqs=CERT_REQUIRED"),
        ("rediss://h/1?ssl_cert_reqs=none", "rediss://h/1?ssl_cert_reqs=none"),
        ("redis://h/1", "redis://h/1"),
    ],
)
def test_certificates_are_checked_unless_the_url_says_otherwise(given: str, expected: str) -> None:
    assert checking_certificates(SecretStr(given)).get_secret_value() == expected


@pytest.mark.parametrize("value", ["none", "CERT_NONE", "optional"])
def test_production_wants_certificates_checked(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", f"rediss://:x7Gq-2mN_4kPz9@h/1?ssl_cert_reqs={value}")
    assert "CELERY_BROKER_URL accepts any certificate" in CelerySettings().audit()[0]
    monkeypatch.setenv("CELERY_BROKER_URL", "rediss://:x7Gq-2mN_4kPz9@h/1")
    assert CelerySettings().audit() == []
