"""Docker in a project that is older than it: offered, switched on and off, with the passwords that the project has."""

from __future__ import annotations

import re
import sys

import pytest

from forge_template import run
from tests.update.world import World, next_tag, tree_of


@pytest.mark.matrix
def test_an_older_project_is_offered_docker_and_keeps_its_passwords(world: World) -> None:
    person = world.project("v0.2.0")
    updated = person.update()
    assert updated.code == 0, updated.report
    assert person.answers()["use_docker"] is False
    assert "Docker" in updated.report.partition("New, and switched off here:")[2]
    person.commit()

    secrets = person.read("secret/.env.production")
    updated = person.update("--data", "use_docker=true")
    assert updated.code == 0, updated.report
    assert person.stages() == {}
    assert tree_of(person.folder) == tree_of(world.copied(next_tag(), person.answers()))
    # Passwords that its clients do not have would be worse than none.
    assert not person.exists("secret/.env.redis")
    run([sys.executable, "-m", "devtools.secrets"], person.folder, timeout=60)
    assert person.read("secret/.env.production") == secrets
    for file, setting in (("redis", "REDIS_PASSWORD"), ("postgres", "POSTGRES_PASSWORD")):
        found = re.search(rf"^{setting}=(.+)$", person.read(f"secret/.env.{file}"), re.MULTILINE)
        assert found
        assert f":{found[1]}@{file}:" in secrets

    person.commit()
    updated = person.update("--data", "use_docker=false")
    assert updated.code == 0, updated.report
    assert not person.exists("docker-compose.yml")
    assert person.exists("secret/.env.redis")
