"""The manifests for Kubernetes: valid to the letter, safe by its strictest standard, and complete whatever the answers."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils
from pathspec import GitIgnoreSpec

from tests.conftest import Renderer

Manifest = dict[str, Any]

# The oldest release that knows every field used, and the newest whose schemas are there.
VERSIONS = ("1.30", "1.37")
ANSWERS: dict[str, dict[str, Any]] = {
    "everything": {"profile": "production"},
    "standard": {},
    "mysql": {"database": "mysql", "auth": "none"},
    "no scheduler": {"scheduler": "none", "use_flower": False},
    "no packs": {"task_examples": [], "auth": "none"},
    "no Celery": {"use_celery": False, "use_redis": True},
    "API alone": {"profile": "minimal", "database": "postgresql", "use_celery": False, "use_redis": False},
}
OVERLAYS = ("staging", "production")


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_TEXT = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 0}
_NAMED = _object(("name",), name=_TEXT)
_METADATA = {"type": "object", "required": ["name"]}
# The parts of KEDA's objects that these manifests use. Its Redis scaler reads every value as text.
KEDA: dict[str, dict[str, Any]] = {
    "TriggerAuthentication": _object(
        ("secretTargetRef",),
        secretTargetRef={
            "type": "array",
            "items": _object(
                ("parameter", "name", "key"),
                parameter={"enum": ["address", "username", "password", "tls"]},
                name=_TEXT,
                key=_TEXT,
            ),
        },
    ),
    "ScaledObject": _object(
        ("scaleTargetRef", "triggers"),
        scaleTargetRef=_NAMED,
        pollingInterval={"type": "integer", "minimum": 1},
        minReplicaCount=_COUNT,
        maxReplicaCount={"type": "integer", "minimum": 1},
        advanced=_object(
            scalingModifiers=_object(("formula", "target"), formula=_TEXT, target=_TEXT),
            horizontalPodAutoscalerConfig=_object(
                behavior=_object(
                    scaleDown=_object(
                        stabilizationWindowSeconds={"type": "integer", "minimum": 0, "maximum": 3600},
                        policies={
                            "type": "array",
                            "items": _object(
                                ("type", "value", "periodSeconds"),
                                type={"enum": ["Pods", "Percent"]},
                                value={"type": "integer", "minimum": 1},
                                periodSeconds={"type": "integer", "minimum": 1, "maximum": 1800},
                            ),
                        },
                    )
                )
            ),
        ),
        triggers={
            "type": "array",
            "minItems": 1,
            "items": _object(
                ("type", "name", "metadata", "authenticationRef"),
                type={"const": "redis"},
                name={"type": "string", "pattern": "^[a-z_][a-z0-9_]*$"},
                metadata=_object(("listName", "databaseIndex"), listName=_TEXT, databaseIndex={"const": "1"}),
                authenticationRef=_NAMED,
            ),
        },
    ),
}

# The parts of the Gateway API's objects that these manifests and docs/kubernetes.md use.
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_HOST = {"type": "string", "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"}
_PATH = _object(("type", "value"), type={"enum": ["PathPrefix", "Exact"]}, value={"type": "string", "pattern": "^/"})
GATEWAY_API: dict[str, dict[str, Any]] = {
    "HTTPRoute": _object(
        ("parentRefs", "hostnames", "rules"),
        parentRefs={
            "type": "array",
            "minItems": 1,
            "items": _object(("name",), name=_TEXT, namespace=_TEXT, sectionName=_TEXT),
        },
        hostnames={"type": "array", "minItems": 1, "items": _HOST},
        rules={
            "type": "array",
            "minItems": 1,
            "maxItems": 16,
            "items": _object(
                matches={"type": "array", "minItems": 1, "items": _object(("path",), path=_PATH)},
                timeouts=_object(("request",), request={"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}),
                backendRefs={"type": "array", "items": _object(("name", "port"), name=_TEXT, port=_PORT)},
                filters={
                    "type": "array",
                    "items": _object(
                        ("type", "requestRedirect"),
                        type={"const": "RequestRedirect"},
                        requestRedirect=_object(
                            ("scheme", "statusCode"), scheme={"const": "https"}, statusCode={"enum": [301, 302]}
                        ),
                    ),
                },
            ),
        },
    ),
    "Gateway": _object(
        ("gatewayClassName", "listeners"),
        gatewayClassName=_TEXT,
        listeners={
            "type": "array",
            "minItems": 1,
            "items": _object(
                ("name", "protocol", "port"),
                name=_TEXT,
                protocol={"enum": ["HTTP", "HTTPS"]},
                port=_PORT,
                tls=_object(("certificateRefs",), certificateRefs={"type": "array", "items": _NAMED}),
                allowedRoutes=_object(("namespaces",), namespaces={"const": {"from": "All"}}),
            ),
        },
    ),
}
OTHERS = {"keda.sh/v1alpha1": KEDA, "gateway.networking.k8s.io/v1": GATEWAY_API}


def problems(manifest: Manifest) -> list[str]:
    """Return what the schemas have against one object; fields that they do not know included."""
    where = f"{manifest.get('kind')} {manifest.get('metadata', {}).get('name')}"
    try:
        if manifest["apiVersion"] in OTHERS:
            spec = OTHERS[manifest["apiVersion"]][manifest["kind"]]
            schema = _object(("spec",), apiVersion=_TEXT, kind=_TEXT, metadata=_METADATA, spec=spec)
            jsonschema.validate(manifest, schema)
        else:
            for version in VERSIONS:
                kubernetes_validate.validate(manifest, version, strict=True)
    except jsonschema.ValidationError as error:
        return [f"{where}: {error.json_path}: {error.message}"]
    except (kubernetes_validate.SchemaNotFoundError, KeyError) as error:
        return [f"{where}: there is no such kind: {error!r}"]
    return []


def unsafe(kind: str, spec: dict[str, Any]) -> list[str]:
    """Return what the pod of this specification could do beyond the standard `restricted`, and what it does without."""
    found = []
    pod = spec.get("securityContext", {})
    expected = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    found += [key for key, value in expected.items() if pod.get(key) != value]
    found += [key for key in ("hostNetwork", "hostPID", "hostIPC", "hostUsers") if key in spec]
    found += [key for key in ("automountServiceAccountToken", "enableServiceLinks") if spec.get(key) is not False]
    found += [str(volume) for volume in spec.get("volumes", []) if "sizeLimit" not in volume.get("emptyDir", {})]
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        context = container.get("securityContext", {})
        if context != {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }:
            found.append(f"securityContext {context}")
        resources = container.get("resources", {})
        if set(resources.get("requests", {})) != {"cpu", "memory"} or "memory" not in resources.get("limits", {}):
            found.append(f"resources {resources}")
        if kind == "Deployment" and not {"startupProbe", "livenessProbe"} <= set(container):
            found.append("probes")
    return found


def documents(path: Path) -> list[Manifest]:
    """Return the objects in a file."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def manifests(project: Path) -> Iterator[Manifest]:
    """Yield each object of a project's base and of its components."""
    for path in sorted((project / "kubernetes").glob("[bgk]*/*.yaml")):
        if path.name != "kustomization.yaml":
            yield from documents(path)


def pod(manifest: Manifest) -> dict[str, Any] | None:
    """Return the specification of an object's pods, if it has any."""
    template: dict[str, Any] = manifest.get("spec", {}).get("template", {})
    return template.get("spec")


@pytest.fixture(scope="module")
def built(render: Renderer, answers: dict[str, Any]) -> dict[str, list[Manifest]]:
    """What kustomize makes of each overlay, its secrets those of the examples."""
    project = render.fresh(answers)
    return {overlay: build(project, overlay) for overlay in OVERLAYS}


def blocks(page: Path, language: str) -> list[Any]:
    """Return the YAML blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [yaml.safe_load(block.partition("```")[0]) for block in text.split(f"```{language}\n")[1:]]


def seconds(duration: str) -> int:
    """Return a duration of the Gateway API that is given in seconds."""
    assert duration.endswith("s")
    return int(duration.removesuffix("s"))


def build(project: Path, overlay: str) -> list[Manifest]:
    """Return what kustomize makes of an overlay."""
    if not shutil.which("kubectl"):
        warnings.warn("NOT TESTED with kustomize: there is no kubectl", stacklevel=1)
        pytest.skip("no kubectl")
    for example in (project / "kubernetes").glob("*.env.example"):
        shutil.copy(example, project / "kubernetes" / "overlays" / overlay / example.stem)
    done = subprocess.run(
        ["kubectl", "kustomize", f"kubernetes/overlays/{overlay}"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module", autouse=True)
def schemas_are_read_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
        yield


@pytest.fixture(scope="module", params=sorted(ANSWERS))
def answers(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {**ANSWERS[request.param], "use_docker": True, "use_kubernetes": True}


def test_every_object_is_valid(render: Renderer, answers: dict[str, Any]) -> None:
    objects = list(manifests(render(answers)))
    assert {"Namespace", "NetworkPolicy", "Deployment", "Service", "Job"} <= {each["kind"] for each in objects}
    assert [problem for each in objects for problem in problems(each)] == []


@pytest.mark.parametrize(
    ("kind", "change", "problem"),
    [
        ("Deployment", {"replica": 2}, "'replica' was unexpected"),
        ("Deployment", {"selector": "api"}, "'api' is not of type"),
        ("ScaledObject", {"minReplicas": 1}, "'minReplicas' was unexpected"),
        ("ScaledObject", {"maxReplicaCount": 0}, "less than the minimum"),
        (
            "TriggerAuthentication",
            {"secretTargetRef": [{"parameter": "host", "name": "x", "key": "x"}]},
            "'host' is not one of",
        ),
        ("HTTPRoute", {"hostname": "api.example.com"}, "'hostname' was unexpected"),
        ("HTTPRoute", {"hostnames": ["https://api.example.com"]}, "does not match"),
        ("HTTPRoute", {"rules": [{"timeouts": {"request": "1.5s"}}]}, "does not match"),
    ],
)
def test_the_schemas_see_mistakes(render: Renderer, kind: str, change: dict[str, Any], problem: str) -> None:
    project = render({"use_docker": True, "use_kubernetes": True})
    manifest = next(each for each in manifests(project) if each["kind"] == kind)
    found = problems({**manifest, "spec": {**manifest["spec"], **change}})
    assert len(found) == 1
    assert problem in found[0]


def test_no_pod_can_do_more_than_it_needs(render: Renderer, answers: dict[str, Any]) -> None:
    for manifest in manifests(render(answers)):
        spec = pod(manifest)
        if spec is not None:
            assert unsafe(manifest["kind"], spec) == [], manifest["metadata"]["name"]
        if manifest["kind"] == "Namespace":
            assert manifest["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_features_bring_their_workloads_and_nothing_else(render: Renderer, answers: dict[str, Any]) -> None:
    project = render(answers)
    workloads = {each["metadata"]["name"] for each in manifests(project) if pod(each)}
    celery = answers.get("use_celery", True)
    scheduled = celery and answers.get("scheduler") != "none"
    expected = {"api": True, "migrate": True, "worker": celery, "worker-long": celery, "beat": scheduled}
    expected["flower"] = celery and answers.get("use_flower", True)
    assert workloads == {name for name, is_there in expected.items() if is_there}
    assert (project / "kubernetes" / "keda").exists() is celery
    base = project / "kubernetes" / "base"
    listed = yaml.safe_load((base / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    assert sorted(listed) == sorted(path.name for path in base.glob("*.yaml") if path.name != "kustomization.yaml")


def test_secrets_stay_out_of_git(render: Renderer) -> None:
    project = render({"profile": "production", "use_docker": True, "use_kubernetes": True})
    ignore = GitIgnoreSpec.from_lines((project / ".gitignore").read_text(encoding="utf-8").splitlines())
    for overlay in OVERLAYS:
        kustomization = yaml.safe_load(
            (project / "kubernetes" / "overlays" / overlay / "kustomization.yaml").read_text(encoding="utf-8")
        )
        for entry in kustomization["secretGenerator"]:
            assert set(entry) <= {"name", "envs", "options"}, "a literal would be in git"
            for file in entry["envs"]:
                assert ignore.match_file(f"kubernetes/overlays/{overlay}/{file}")
                assert not ignore.match_file(f"kubernetes/{file}.example")
                assert (project / "kubernetes" / f"{file}.example").is_file()
    assert not any(each["kind"] == "Secret" for each in manifests(project))


def test_sqlite_is_refused(render: Renderer) -> None:
    with pytest.raises(ValueError, match=r"use_kubernetes.* SQLite is a file on one host"):
        render({"database": "sqlite", "use_docker": True, "use_kubernetes": True})


def test_without_docker_there_are_no_manifests(render: Renderer) -> None:
    assert not (render({"use_docker": False, "use_kubernetes": True}) / "kubernetes").exists()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_builds_what_can_be_applied(
    built: dict[str, list[Manifest]], answers: dict[str, Any], overlay: str
) -> None:
    objects = built[overlay]
    assert [problem for each in objects for problem in problems(each)] == []
    # One namespace for all, made by the namespace's own object.
    [namespace] = [each["metadata"]["name"] for each in objects if each["kind"] == "Namespace"]
    assert namespace.endswith("-staging") == (overlay == "staging")
    assert {each["metadata"].get("namespace", namespace) for each in objects} == {namespace}

    names = {(each["kind"], each["metadata"]["name"]) for each in objects}
    settings = next(each["data"] for each in objects if each["kind"] == "ConfigMap")
    assert settings["ENVIRONMENT"] == overlay
    for manifest in objects:
        assert manifest["metadata"]["labels"]["app.kubernetes.io/part-of"]
        spec = pod(manifest)
        if spec is None:
            continue
        assert ("ServiceAccount", spec["serviceAccountName"]) in names
        for container in spec["containers"]:
            assert container["image"].startswith("registry.example.com/")
            wanted = {
                ("ConfigMap", source["configMapRef"]["name"])
                if "configMapRef" in source
                else ("Secret", source["secretRef"]["name"])
                for source in container["envFrom"]
            }
            # With a hash in its name, so that what changes is rolled out.
            assert {name.rsplit("-", 1)[0] for _, name in wanted} == {"app-settings", "app-secrets"}
            assert wanted <= names

    scaled = [each for each in objects if each["kind"] == "ScaledObject"]
    assert bool(scaled) == (overlay == "production" and answers.get("use_celery", True))
    for manifest in scaled:
        target = manifest["spec"]["scaleTargetRef"]["name"]
        # KEDA says how many: a number of its own would undo that at every apply.
        [deployment] = [each for each in objects if (each["kind"], each["metadata"]["name"]) == ("Deployment", target)]
        assert "replicas" not in deployment["spec"]
        for trigger in manifest["spec"]["triggers"]:
            assert ("TriggerAuthentication", trigger["authenticationRef"]["name"]) in names
    for manifest in objects:
        if manifest["kind"] == "TriggerAuthentication":
            secrets = {each["metadata"]["name"]: each["data"] for each in objects if each["kind"] == "Secret"}
            assert all(ref["key"] in secrets[ref["name"]] for ref in manifest["spec"]["secretTargetRef"])


def test_migrations_can_be_applied_before_the_rest(built: dict[str, list[Manifest]]) -> None:
    """docs/kubernetes.md applies the foundation and the Job first: they need nothing of what comes after."""
    objects = built["production"]
    first = [
        each
        for each in objects
        if each["metadata"]["labels"].get("app.kubernetes.io/component") in {"foundation", "migrate"}
    ]
    kinds = {each["kind"] for each in first}
    assert kinds == {"Namespace", "ServiceAccount", "ConfigMap", "Secret", "NetworkPolicy", "Job"}
    assert sum(each["kind"] in kinds for each in objects) == len(first)


@pytest.mark.parametrize("overlay", ["production", "staging"])
def test_an_overlay_with_the_lines_of_the_docs_routes_its_host_name(
    render: Renderer, answers: dict[str, Any], overlay: str
) -> None:
    project = render.fresh(answers)
    component, gateway = blocks(project / "docs" / "kubernetes.md", "yaml")
    assert problems(gateway) == []
    before = {(each["kind"], each["metadata"]["name"]) for each in build(project, overlay)}
    path = project / "kubernetes" / "overlays" / overlay / "kustomization.yaml"
    kustomization = yaml.safe_load(path.read_text(encoding="utf-8"))
    component["components"] = kustomization.get("components", []) + component["components"]
    path.write_text(yaml.safe_dump({**kustomization, **component}), encoding="utf-8")
    objects = build(project, overlay)
    assert [problem for each in objects for problem in problems(each)] == []
    added = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert set(added) ^ before == {
        ("HTTPRoute", "api"),
        ("HTTPRoute", "redirect-to-https"),
        ("NetworkPolicy", "gateway"),
    }
    listeners = {listener["name"] for listener in gateway["spec"]["listeners"]}
    for name in ("api", "redirect-to-https"):
        route = added["HTTPRoute", name]["spec"]
        assert route["hostnames"] == ["api.example.com"]
        assert {parent["sectionName"] for parent in route["parentRefs"]} <= listeners


def test_the_route_waits_for_streams_of_events(render: Renderer) -> None:
    project = render({"profile": "production", "use_docker": True, "use_kubernetes": True})
    [events] = project.rglob("platform/events.py")
    streams_end = float(re.findall(r"^MAX_AGE = ([\d.]+)$", events.read_text(encoding="utf-8"), re.MULTILINE)[0])
    [route] = [each for each in manifests(project) if each["metadata"]["name"] == "api" and each["kind"] == "HTTPRoute"]
    [rule] = [
        rule for rule in route["spec"]["rules"] if "/tasks" in [match["path"]["value"] for match in rule["matches"]]
    ]
    assert seconds(rule["timeouts"]["request"]) > streams_end
