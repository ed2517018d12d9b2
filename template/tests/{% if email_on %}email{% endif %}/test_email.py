"""Mails, sent to a real SMTP server that can also fail, hang and use TLS."""

import gc
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from celery import states
from celery.exceptions import Retry
from jinja2 import FileSystemLoader, TemplateNotFound, UndefinedError
from pydantic import ValidationError

from app.core.celery import celery_app
from app.core.config.application import app_settings
from app.features.email import service
from app.features.email.config import EmailSettings, email_settings
from app.features.email.service import MailError, TemporaryMailError, deliver, email_service, send_email
from app.tasks.email_tasks import send_password_reset, send_verification_email
from app.tasks.send_email_task import send_email_task
from app.tasks.welcome_email_task import send_welcome_email
from devtools.mail import Catcher, shown
from devtools.servers import free_port
from tests import ROOT
from tests.e2e.mail_sink import HANGS, MailSink

TASKS = pytest.mark.parametrize(
    ("task", "arguments"),
    [
        (send_email_task, ("ada@example.com", "Subject", "Body", "<p>Body</p>")),
        (send_welcome_email, ("ada@example.com",)),
        (send_verification_email, ("ada@example.com", "314159")),
        (send_password_reset, ("ada@example.com", "314159")),
    ],
)


# `asyncio.run` may end before the TLS shutdown. Garbage collection then closes the connection, before a test of another
# module runs. Once for all tests of this one: it takes a quarter of a second.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def collect_garbage() -> Iterator[None]:
    """Collect garbage after the last test."""
    yield
    gc.collect()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., MailSink]]:
    """Yield a function that starts a server and sets the settings to it."""
    running = []

    def start(*, use_tls: bool = False, use_ssl: bool = False, host_user: str = "", **options: Any) -> MailSink:
        sink = MailSink(**options)
        running.append(sink)
        values = {"host": "localhost", "port": sink.port, "use_tls": use_tls, "use_ssl": use_ssl}
        for name, value in {**values, "host_user": host_user, "timeout": 5.0}.items():
            monkeypatch.setattr(email_settings, name, value)
        return sink

    yield start
    for sink in running:
        sink.stop()


@pytest.fixture
def sink(serve: Callable[..., MailSink]) -> MailSink:
    return serve()


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Return the context of a server whose certificate this process trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is needed to create a certificate")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    return context


def _part(mail: EmailMessage, kind: str) -> str:
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def test_a_mail_arrives(sink: MailSink) -> None:
    send_email("ada@example.com", "Grüße", "Hello Ada")
    assert (sink.mails[0]["To"], sink.mails[0]["Subject"]) == ("ada@example.com", "Grüße")
    assert _part(sink.mails[0], "plain").startswith("Hello Ada")
    assert sink.mails[0].get_body(("html",)) is None


@pytest.mark.parametrize("template", ["welcome_email", "verification_email", "reset_password_email"])
def test_templates_are_sent_as_text_and_html(sink: MailSink, template: str) -> None:
    values = {"code": "<314159>", "email": "<ada@example.com>"}
    # As in a `def` task: a coroutine that is not awaited would send nothing, and the task would succeed.
    email_service.send_email(subject="Hi", recipient="ada@example.com", template=template, **values)
    [mail] = sink.mails
    value = values["email" if template == "welcome_email" else "code"]
    assert value in _part(mail, "plain")
    html = _part(mail, "html")
    assert html.startswith("<!doctype html>")
    assert value not in html
    assert value.replace("<", "&lt;").replace(">", "&gt;") in html
    assert app_settings.name in html


def test_a_template_needs_all_its_values_but_no_html() -> None:
    assert email_service.render_html("no_such_email") is None
    with pytest.raises(TemplateNotFound):
        email_service.render("no_such_email")
    with pytest.raises(UndefinedError):
        email_service.render_html("verification_email")


def test_templates_that_a_project_added_before_0_5_0_are_found() -> None:
    loader = service._templates().loader
    assert isinstance(loader, FileSystemLoader)
    assert str(ROOT / "app" / "templates" / "email") in loader.searchpath


@TASKS
def test_tasks_send_mails(sink: MailSink, task: Any, arguments: tuple[str, ...]) -> None:
    assert task.apply(args=arguments).get() == {"status": "sent", "recipient": "ada@example.com"}
    assert _part(sink.mails[0], "html")
    assert arguments[-1].removeprefix("<p>").removesuffix("</p>") in str(sink.mails[0].get_body(("plain",)))


def test_task_names_do_not_change() -> None:
    assert {"send_email_task", "send_welcome_email", "send_verification_email", "send_password_reset"} <= set(
        celery_app.tasks
    )


def test_events_do_not_contain_mails() -> None:
    seen: list[dict[str, Any]] = []

    def look(headers: dict[str, Any], **_: object) -> None:
        seen.append(headers)

    from celery.signals import before_task_publish

    before_task_publish.connect(look)
    try:
        send_verification_email.delay("ada@example.com", "314159")
        send_email_task.delay("ada@example.com", "Private", "Body")
    finally:
        before_task_publish.disconnect(look)
        celery_app.control.purge()
    assert [(one["argsrepr"], one["kwargsrepr"]) for one in seen] == [("(hidden)", "{hidden}")] * 2


@pytest.mark.parametrize("answer", ["550 no such user", "554 no"])
def test_a_permanent_rejection_is_not_retried(sink: MailSink, answer: str) -> None:
    sink.answer = answer
    result = send_email_task.apply(args=("nobody@example.com", "s", "b"))
    assert result.state == states.FAILURE
    assert isinstance(result.result, MailError)
    assert answer in str(result.result)


@pytest.mark.parametrize("answer", ["451 try later", "421 too many"])
def test_a_temporary_rejection_is_retried(sink: MailSink, answer: str) -> None:
    sink.answer = answer
    with pytest.raises((Retry, TemporaryMailError)):
        send_email_task.apply(args=("ada@example.com", "s", "b"), throw=True)
    with pytest.raises(TemporaryMailError, match=answer[:3]):
        send_email("ada@example.com", "s", "b")


def test_a_mail_is_sent_after_the_server_has_recovered(sink: MailSink, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["451 try later", "451 try later"])

    async def recovering(server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        envelope.rcpt_tos.append(address)
        return next(answers, "250 OK")

    monkeypatch.setattr(sink, "handle_RCPT", recovering)
    assert send_email_task.apply(args=("ada@example.com", "s", "b")).get()["status"] == "sent"
    assert len(sink.mails) == 1


@TASKS
def test_retries_use_exponential_backoff_with_jitter(
    task: Any, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []

    async def fail(_: EmailMessage) -> None:
        raise TemporaryMailError("451 try later")

    def note(*_: object, countdown: int, **__: object) -> Retry:
        waits.append(countdown)
        return Retry()

    monkeypatch.setattr("app.features.email.service.send_message", fail)
    monkeypatch.setattr(task, "retry", note)
    for retries, longest in ((0, 2), (4, 32), (9, 600)):
        waits.clear()
        task.push_request(retries=retries)
        for _ in range(20):
            with pytest.raises(Retry):
                task.run(*arguments)
        task.pop_request()
        assert longest / 4 < max(waits) <= longest
        assert len(set(waits)) > 1
    # Even with the longest waits, the retries end before a code expires.
    assert sum(min(600, 2 * 2**retries) for retries in range(task.max_retries)) < 1800


def test_an_unreachable_server_is_a_temporary_error(sink: MailSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(email_settings, "port", 1)
    with pytest.raises(TemporaryMailError, match="localhost:1"):
        send_email("ada@example.com", "s", "b")


def test_a_timeout_is_a_temporary_error(sink: MailSink, monkeypatch: pytest.MonkeyPatch) -> None:
    sink.answer = HANGS
    monkeypatch.setattr(email_settings, "timeout", 0.3)
    with pytest.raises(TemporaryMailError, match="imed out"):
        send_email("ada@example.com", "s", "b")


@pytest.mark.parametrize(
    ("recipient", "subject"),
    [
        *((recipient, "s") for recipient in ("not an address", "", "a@", "@", "a@b@example.com", "a@example..com")),
        *(
            (recipient, "s")
            for recipient in ("ä@example.com", "a..b@example.com", f"a@{'x' * 64}.com", "a@ex ample.com")
        ),
        ("a@example.com", "a\nBcc: b@example.com"),
    ],
)
def test_invalid_addresses_and_subjects_are_rejected(sink: MailSink, recipient: str, subject: str) -> None:
    with pytest.raises(MailError, match="invalid address or subject"):
        send_email(recipient, subject, "b")
    assert not sink.mails


def test_a_domain_is_encoded_in_ascii(sink: MailSink) -> None:
    send_email("ada@Bücher.example", "s", "b")
    assert sink.mails[0]["To"] == "ada@xn--bcher-kva.example"


@pytest.mark.parametrize("address", ["ä@example.com", "nobody", "a..b@example.com", "Ada <ada@example.com>"])
def test_an_invalid_sender_is_rejected(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMAIL_FROM_EMAIL", address)
    with pytest.raises(ValidationError, match=r"EMAIL_FROM_EMAIL (must|has an invalid)"):
        EmailSettings()


@pytest.mark.anyio
async def test_deliver_works_in_an_event_loop(sink: MailSink) -> None:
    await deliver("ada@example.com", "s", "b")
    assert len(sink.mails) == 1


def test_starttls(serve: Callable[..., MailSink], certificate: ssl.SSLContext) -> None:
    sink = serve(use_tls=True, tls_context=certificate, require_starttls=True)
    send_email("ada@example.com", "s", "b")
    assert sink.encrypted == [True]


def test_implicit_tls(serve: Callable[..., MailSink], certificate: ssl.SSLContext) -> None:
    sink = serve(use_ssl=True, ssl_context=certificate)
    send_email("ada@example.com", "s", "b")
    assert sink.encrypted == [True]


@pytest.mark.parametrize("kind", [{"use_tls": True}, {"use_ssl": True}])
def test_an_untrusted_certificate_is_rejected(
    serve: Callable[..., MailSink], certificate: ssl.SSLContext, kind: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    sink = serve(**kind, **{"tls_context" if "use_tls" in kind else "ssl_context": certificate})
    with pytest.raises(TemporaryMailError, match="certificate"):
        send_email("ada@example.com", "s", "b")
    assert not sink.mails


def test_no_mail_is_sent_to_a_server_without_starttls(serve: Callable[..., MailSink]) -> None:
    sink = serve(use_tls=True)
    with pytest.raises(MailError, match="STARTTLS"):
        send_email("ada@example.com", "s", "b")
    assert not sink.mails


def test_failed_authentication_is_not_retried(serve: Callable[..., MailSink], certificate: ssl.SSLContext) -> None:
    sink = serve(
        use_tls=True,
        host_user="app",
        tls_context=certificate,
        authenticator=lambda *_: AuthResult(success=False, handled=False),
        auth_required=True,
    )
    with pytest.raises(MailError, match="535"):
        send_email("ada@example.com", "s", "b")
    assert not sink.mails


def test_the_catcher_prints_and_stores_mails(
    tmp_path: Path, sink: MailSink, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    catcher = Catcher(tmp_path)
    controller = Controller(catcher, hostname="127.0.0.1", port=free_port())
    controller.start()
    monkeypatch.setattr(email_settings, "port", controller.port)
    try:
        send_email("ada@example.com", "Grüße", "Schöne Grüße", "<p>Schöne Grüße</p>")
    finally:
        controller.stop()
    printed = capsys.readouterr().out
    assert "To: ada@example.com\nSubject: Grüße\n\nSchöne Grüße\n" in printed
    [kept] = tmp_path.glob("*.eml")
    assert str(kept) in printed
    assert "Schöne Grüße" in shown(kept.read_bytes())
