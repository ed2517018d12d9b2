"""The rules of the template: plain files, one source and one owner each, clean names, no action after the copy."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from pathspec import GitIgnoreSpec

from forge_template import ROOT, working_files
from tests.conftest import Renderer
from tests.copy.sound import files
from tests.copy.test_render import combinations, name

OWNERS = ("template", "seeded", "user")
# These would act on this repository itself without the suffix.
_SUFFIX_TO_HIDE = re.compile(r"(^|/)\.git(ignore|attributes)\.jinja$")


@pytest.fixture(scope="module")
def template_files() -> list[str]:
    return working_files("template")


@pytest.fixture(scope="module")
def owners() -> dict[str, GitIgnoreSpec]:
    listed = yaml.safe_load((ROOT / "owners.yml").read_text(encoding="utf-8"))
    assert tuple(listed) == OWNERS
    return {owner: GitIgnoreSpec.from_lines(patterns) for owner, patterns in listed.items()}


def final_path(template_path: str) -> str:
    """Return where a template file is written when every condition in its path holds."""
    return re.sub(r"\{%.*?%\}", "", template_path.removeprefix("template/")).removesuffix(".jinja")


def test_no_final_path_has_two_sources(template_files: list[str]) -> None:
    """Two alternatives of a file drift apart, and a reader finds only one of them."""
    counts = Counter(map(final_path, template_files))
    assert sorted(path for path, count in counts.items() if count > 1) == []


def test_few_template_files_have_a_condition_in_their_own_name(template_files: list[str]) -> None:
    """A condition in a folder's name covers all that the folder holds."""
    conditional = [path for path in template_files if "{%" in path.rsplit("/", 1)[-1]]
    assert len(conditional) <= 90, f"{len(conditional)} files"


def test_no_jinja_in_the_text_of_features_and_worker(template_files: list[str]) -> None:
    plain = ("app/features/", "app/worker/", "app/tasks/")
    assert [path for path in template_files if path.endswith(".jinja") and final_path(path).startswith(plain)] == []


# The modules that import parts of the project by names which they find.
REGISTRY = {
    "app/core/config/__init__.py",
    "app/core/discovery.py",
    "app/models/__init__.py",
}


def questions_of_an_answer(source: str, parts: set[str]) -> list[str]:
    """Return the calls by which code asks at run time for a part of its own project.

    An answer has decided whether that part exists. `parts` are the files and folders of the template.
    """
    found = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        function = ast.unparse(call.func).rpartition(".")[2]
        asks_settings = function == "getattr" and ast.unparse(call.args[0]).endswith("settings")
        imports = function in {"import_module", "find_spec", "__import__", "import_string"}
        looks = function in {"exists", "is_dir", "is_file"} and _path_in(call) in parts
        if asks_settings or imports or looks:
            found.append(f"{call.lineno}: {ast.unparse(call)}")
    return found


def _path_in(call: ast.Call) -> str:
    """Return the path that the texts in `ROOT / "a" / "b.py"` give, or an empty string."""
    texts = [
        (node.lineno, node.col_offset, node.value)
        for node in ast.walk(call)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return "/".join(text for _, _, text in sorted(texts))


@pytest.mark.parametrize("profile", ["minimal", "standard", "production"])
def test_code_asks_for_no_part_of_the_project_itself(render: Renderer, template_files: list[str], profile: str) -> None:
    project = render({"profile": profile})
    paths = {final_path(path) for path in template_files}
    parts = paths | {parent.as_posix() for path in paths for parent in Path(path).parents}
    found = [
        f"{path}:{question}"
        for path in files(project)
        if path.startswith(("app/", "devtools/")) and path.endswith(".py") and path not in REGISTRY
        for question in questions_of_an_answer((project / path).read_text(encoding="utf-8"), parts)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        'getattr(settings, "email", None)',
        'getattr(config.settings, "email")',
        'importlib.import_module("app.core.redis")',
        'importlib.util.find_spec("app.tasks")',
        '(ROOT / "kubernetes").is_dir()',
        '(ROOT / "app" / "tasks" / "a.py").exists()',
        'Path("app/tasks/a.py").is_file()',
    ],
)
def test_the_rule_sees_each_kind_of_question(line: str) -> None:
    parts = {"app", "app/tasks", "app/tasks/a.py", "kubernetes"}
    assert questions_of_an_answer(line, parts) == [f"1: {ast.unparse(ast.parse(line))}"]


@pytest.mark.parametrize("line", ['(ROOT / "uv.lock").exists()', "path.exists()", 'getattr(task, "settings", None)'])
def test_the_rule_allows_what_no_answer_decides(line: str) -> None:
    assert questions_of_an_answer(line, {"app", "kubernetes"}) == []


def reprs_of_errors(source: str) -> list[str]:
    """Return where code shows the `repr` of an error that it caught: that of redis-py's errors (8.1.0) has no message."""
    found = []
    for handler in ast.walk(ast.parse(source)):
        if not isinstance(handler, ast.ExceptHandler) or handler.name is None:
            continue
        shown: list[ast.expr] = []
        for node in ast.walk(handler):
            if isinstance(node, ast.FormattedValue) and node.conversion == ord("r"):
                shown.append(node.value)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "repr":
                shown.extend(node.args)
            elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                formats = re.findall(r"%[a-z]", str(node.args[0].value))
                shown.extend(value for value, kind in zip(node.args[1:], formats, strict=False) if kind == "%r")
        names = {name.id for value in shown for name in ast.walk(value) if isinstance(name, ast.Name)}
        if handler.name in names:
            found.append(f"{handler.lineno}: {handler.name}")
    return found


def test_errors_are_shown_with_their_message(template_files: list[str]) -> None:
    found = [
        f"{path}:{error}"
        for path in template_files
        if path.startswith("template/app/") and path.endswith(".py")
        for error in reprs_of_errors((ROOT / path).read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize("show", ['log("failed", error=repr(error))', 'log("%s: %r", name, error)', 'f"{error!r}"'])
def test_the_rule_sees_each_way_to_show_an_error(show: str) -> None:
    assert reprs_of_errors(f"try:\n    run()\nexcept ValueError as error:\n    {show}") == ["3: error"]
    assert reprs_of_errors("try:\n    run()\nexcept ValueError as error:\n    log('%r: %s', name, error)") == []


def test_suffix_only_where_the_text_changes(template_files: list[str]) -> None:
    for path in template_files:
        text = (ROOT / path).read_text(encoding="utf-8")
        if path.endswith(".jinja") and not _SUFFIX_TO_HIDE.search(path):
            assert "{{" in text or "{%" in text, f"{path} needs no suffix"
        if not path.endswith(".jinja") and path.endswith((".py", ".toml")):
            assert "{%" not in text, f"{path} has Jinja and no suffix"


def test_names_work_on_every_system(template_files: list[str]) -> None:
    assert [path for path in template_files if re.search(r'["|<>:?*\\]', path)] == []


def test_nothing_acts_on_this_repository(template_files: list[str]) -> None:
    special = {".gitignore", ".gitattributes", ".gitmodules", ".python-version", "uv.lock"}
    assert [path for path in template_files if path.rsplit("/", 1)[-1] in special] == []


def test_nothing_happens_behind_the_copy() -> None:
    config = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    assert "_tasks" not in config


def test_standard_profile_is_small(render: Renderer) -> None:
    # 17 of them are the operators' page.
    assert len(files(render({}))) <= 405


@pytest.mark.parametrize("answers", combinations(2), ids=name)
def test_every_file_has_one_owner(
    render: Renderer, owners: dict[str, GitIgnoreSpec], answers: dict[str, object]
) -> None:
    for path in files(render(answers)):
        assert [owner for owner in OWNERS if owners[owner].match_file(path)] in [[owner] for owner in OWNERS], path


def test_every_pattern_is_used(render: Renderer, owners: dict[str, GitIgnoreSpec]) -> None:
    everything = {path for answers in combinations(2) for path in files(render(answers))}
    listed = yaml.safe_load((ROOT / "owners.yml").read_text(encoding="utf-8"))
    unused = [
        pattern
        for patterns in listed.values()
        for pattern in patterns
        if not any(GitIgnoreSpec.from_lines([pattern.lstrip("!")]).match_file(path) for path in everything)
    ]
    assert unused == []


def test_copier_skips_what_is_not_the_templates(render: Renderer, owners: dict[str, GitIgnoreSpec]) -> None:
    """Copier itself must not rewrite a seeded or a user's file, whatever else runs at an update."""
    config = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    skipped = set(config["_skip_if_exists"])
    theirs = {
        path
        for answers in ({}, {"database": "mysql"})
        for path in files(render(answers))
        if owners["seeded"].match_file(path) or owners["user"].match_file(path)
    }
    assert theirs == skipped


def test_git_ignores_secrets_and_only_those(render: Renderer) -> None:
    project = render({})
    ignore = GitIgnoreSpec.from_lines((project / ".gitignore").read_text(encoding="utf-8").splitlines())
    secret = {path for path in files(project) if path.startswith("secret/.env.")}
    assert secret >= {"secret/.env.development", "secret/.env.production", "secret/.env.redis"}
    assert {path for path in files(project) if ignore.match_file(path)} == secret
    assert {(project / path).stat().st_mode & 0o777 for path in secret} == {0o600}
    for created in (
        ".venv/x",
        ".dev/x",
        "celerybeat-schedule",
        "dump.rdb",
        "backup.dump",
        "backup.sql.gz",
        "x/__pycache__/y.pyc",
    ):
        assert ignore.match_file(created), created


@pytest.mark.parametrize("database", ["postgresql", "mysql", "sqlite"])
@pytest.mark.parametrize("use_celery", [True, False])
def test_workflow_of_a_project_has_no_findings(render: Renderer, database: str, use_celery: bool) -> None:
    project = render({"ci": "github", "database": database, "use_celery": use_celery})
    workflows = sorted(map(str, (project / ".github" / "workflows").glob("*.yml")))
    assert workflows
    bin_folder = Path(sys.executable).parent
    for command in ([bin_folder / "actionlint"], [bin_folder / "zizmor", "--offline", "--no-progress"]):
        done = subprocess.run([*command, *workflows], cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_no_workflow_of_forge_runs_packages_in_a_job_that_may_write() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for title, job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].items():
            if any(re.search(r"\bmake |\.venv/", step.get("run", "")) for step in job["steps"]):
                assert "write" not in job["permissions"].values(), f"{path.name}: {title}"


def test_no_registry_and_no_git_host(render: Renderer) -> None:
    """A lock records a registry's address, and a hook from a git host does not work offline."""
    project = render({"profile": "production"})
    hooks = yaml.safe_load((project / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert {entry["repo"] for entry in hooks["repos"]} == {"local"}
    assert "uv.lock" not in files(project)
    own = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert {entry["repo"] for entry in own["repos"]} == {"local"}


def test_task_modules_do_not_import_what_only_some_tasks_need(render: Renderer) -> None:
    """Workers, beat and the API import every task module when they start."""
    heavy = {"aiosmtplib", "argon2", "asyncpg", "fastapi", "httpx2", "jinja2", "jwt", "PIL", "reportlab", "sqlalchemy"}
    tasks = render({"profile": "production"}) / "app" / "tasks"
    found = [
        f"{path.name}: {name}"
        for path in sorted(tasks.rglob("*.py"))
        for statement in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for name in [getattr(statement, "module", None) or statement.names[0].name]
        if name.partition(".")[0] in heavy or name == "app.core.database"
    ]
    assert found == []
