"""The manifests use only existing settings, and run the commands of docker-compose.yml."""

import re
import shlex
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from app.core.config import UnsafeSettings, load_groups, require_safe_settings
from tests import ROOT

KUBERNETES = ROOT / "kubernetes"

# Services in docker-compose.yml and their workloads in kubernetes/. Remove a service that only one of them has.
SAME = {
    "api": "api",
    "celery_beat": "beat",
    "celery_worker": "worker",
    "celery_worker_long": "worker-long",
    "flower": "flower",
    "migrate": "migrate",
}
# Only Flower reads it.
NOT_OURS = {"FLOWER_BASIC_AUTH"}


def workloads() -> dict[str, dict[str, Any]]:
    """Return the pod specification of each Deployment and Job, by name."""
    return {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in objects("Deployment", "Job")}


def objects(*kinds: str) -> list[dict[str, Any]]:
    """Return the objects of these kinds in the base and in the components."""
    files = sorted(KUBERNETES.glob("[bgk]*/*.yaml"))
    found = [each for file in files for each in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
    return [each for each in found if each["kind"] in kinds]


def variables(file: str) -> dict[str, str]:
    """Return the variables in a file of settings."""
    lines = (KUBERNETES / file).read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def fields() -> dict[str, object]:
    """Return the default of each setting."""
    return {
        type(group).variable(name): field.default
        for group in load_groups()
        for name, field in type(group).model_fields.items()
    }


def test_every_variable_is_a_setting() -> None:
    assert set(variables("base/settings.env")) - set(fields()) == set()
    assert set(variables("app.env.example")) - set(fields()) - NOT_OURS == set()


def test_no_secret_is_in_git() -> None:
    plain = set(variables("base/settings.env"))
    assert {name for name in plain if isinstance(fields()[name], SecretStr)} == set()


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_the_application_starts_only_without_placeholders(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**variables("base/settings.env"), **variables("app.env.example"), "ENVIRONMENT": environment}
    for name in fields():
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnsafeSettings, match="DATABASE_URL"):
        require_safe_settings()
    for name, value in given.items():
        monkeypatch.setenv(name, re.sub(r"<random:\w+>", "x7Gq-2mN_4kPz9-vB8tR3wLs6yHc1dFj5", value))
    require_safe_settings()


def test_commands_equal_those_of_compose() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    known = workloads()
    expected = {name: services[service]["command"] for service, name in SAME.items() if service in services}
    assert {name: shlex.join(pod["containers"][0]["args"]) for name, pod in known.items()} == {
        name: command.strip() if isinstance(command, str) else shlex.join(command) for name, command in expected.items()
    }


def test_the_grace_period_covers_open_requests() -> None:
    pod = workloads()["api"]
    [container] = pod["containers"]
    command = container["args"]
    waits = int(command[command.index("--timeout-graceful-shutdown") + 1])
    before = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pod["terminationGracePeriodSeconds"] > waits + before


def test_a_service_selects_existing_pods_and_ports() -> None:
    [service] = objects("Service")
    pods = [each for each in objects("Deployment") if each["metadata"]["name"] == "api"]
    labels = pods[0]["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    ports = {port["name"] for port in workloads()["api"]["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_the_route_forwards_to_an_existing_service() -> None:
    [service] = objects("Service")
    known = {(service["metadata"]["name"], port["port"]) for port in service["spec"]["ports"]}
    rules = [rule for route in objects("HTTPRoute") for rule in route["spec"]["rules"]]
    backends = [(ref["name"], ref["port"]) for rule in rules for ref in rule.get("backendRefs", [])]
    assert set(backends) == known
