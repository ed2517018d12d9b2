"""The storage: file names, settings and cleanup. Set TEST_STORAGE_URL to test with a bucket instead of a folder."""

import os
import shutil
import time

import obstore
import pytest
from obstore.store import S3Store
from pydantic import ValidationError
from structlog.testing import capture_logs

from app.features.storage import service
from app.features.storage.config import StorageSettings, storage_settings
from app.features.storage.service import UNFINISHED_AFTER, InvalidFileName, checked, delete_unfinished, store


def test_a_stored_file_can_be_read() -> None:
    path = checked("test", "Grüße 1.txt")
    obstore.put(store(), path, b"hello")
    assert bytes(obstore.get(store(), path).bytes()) == b"hello"
    assert [meta["path"] for meta in obstore.list(store(), "test").collect()] == [path]
    obstore.delete(store(), path)
    with pytest.raises(FileNotFoundError):
        obstore.get(store(), path)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/etc",
            "a\\b",
            "a\0b",
            "a\nb",
            ".env",
            " a",
            "a ",
            "a.",
            "-rf",
            "a#1",
            "x" * 128,
        ),
        *("\ud800", "a\u202eb", "a\u2215b", "c:x", "日" * 81, "\u0301", "CON", "nul.txt", "Com1.tar.gz", "lpt¹"),
    ],
)
def test_unsafe_names_are_rejected(name: str) -> None:
    with pytest.raises(InvalidFileName, match="is not a valid file name"):
        checked("files", name)


@pytest.mark.parametrize("name", ["日" * 80, "ä" * 120, "हिन्दी.csv", "contact.csv", "com10", "a..b"])
def test_names_in_all_languages_are_accepted_up_to_the_limit(name: str) -> None:
    path = checked("test", name)
    obstore.put(store(), path, b"hello")
    assert obstore.head(store(), path)["size"] == 5
    obstore.delete(store(), path)


def test_both_unicode_forms_of_an_accent_are_the_same_name() -> None:
    assert checked("files", "Gru\u0308ße") == checked("files", "Grüße") == "files/Grüße"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STORAGE_URL", "ftp://host/x"),
        ("STORAGE_URL", "s3://"),
        ("STORAGE_ENDPOINT", "minio:9000"),
        ("STORAGE_ACCESS_KEY_ID", "key-without-secret"),
        ("STORAGE_MAX_UPLOAD_BYTES", "0"),
    ],
)
def test_invalid_settings_are_rejected(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    if variable == "STORAGE_ACCESS_KEY_ID":
        monkeypatch.delenv("STORAGE_SECRET_ACCESS_KEY", raising=False)
    with pytest.raises(ValidationError, match=f"{variable}|{variable.removeprefix('STORAGE_').lower()}"):
        StorageSettings()


def test_a_slow_download_from_a_bucket_does_not_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default, obstore limits a whole response to 30 s, with ten attempts."""
    monkeypatch.setattr(service, "storage_settings", StorageSettings(url="s3://bucket"))
    bucket = store.__wrapped__()
    assert isinstance(bucket, S3Store)
    assert bucket.client_options is not None
    assert (bucket.client_options["timeout"], bucket.client_options["read_timeout"]) == ("1day", "30s")


def test_the_audit_finds_a_weak_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("STORAGE_SECRET_ACCESS_KEY", "password")
    assert StorageSettings().audit()[0].startswith("STORAGE_SECRET_ACCESS_KEY")
    monkeypatch.setenv("STORAGE_SECRET_ACCESS_KEY", "x7Gq-2mN_4kPz9")
    assert StorageSettings().audit() == []


@pytest.mark.skipif(storage_settings.is_bucket, reason="a bucket uses a lifecycle rule")
def test_only_unfinished_files_older_than_a_day_are_deleted() -> None:
    folder = storage_settings.folder / "test"
    folder.mkdir(parents=True, exist_ok=True)
    names = {"old.csv#1", "old.csv#22", "new.csv#1", "old.csv", "old#1.csv"}
    for name in names:
        (folder / name).write_bytes(b"12345")
        if name.startswith("old"):
            moment = time.time() - UNFINISHED_AFTER.total_seconds() - 60
            os.utime(folder / name, (moment, moment))
    (folder / "folder#1").mkdir()
    with capture_logs() as logs:
        assert delete_unfinished() == 2
    assert {path.name for path in folder.iterdir()} == {"new.csv#1", "old.csv", "old#1.csv", "folder#1"}
    assert [(line["files"], line["bytes"]) for line in logs] == [(2, 10)]
    shutil.rmtree(folder)


def test_unfinished_uploads_in_a_bucket_are_not_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_settings, "url", "s3://bucket")
    assert delete_unfinished() == 0
