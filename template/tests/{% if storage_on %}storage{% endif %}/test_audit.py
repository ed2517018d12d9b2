"""The audit check of the storage."""

import pytest

from app.core.config import defaults
from app.features.storage.audit import storage_findings
from app.features.storage.config import storage_settings


@pytest.mark.parametrize(
    ("url", "pods", "state"),
    [("folder", False, "ok"), ("folder", True, "problem"), ("s3://bucket", False, "ok"), ("s3://bucket", True, "ok")],
)
@pytest.mark.parametrize("found", ["by answer", "by environment"])
async def test_pods_need_a_bucket(
    url: str, pods: bool, state: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_settings, "url", url)
    monkeypatch.setattr(defaults, "IN_PODS", pods and found == "by answer")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if pods and found == "by environment":
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert [finding.state async for finding in storage_findings()] == [state]
