# Works with nothing but Python 3.11 or later, pip, git and make: uv comes into .venv, and everything else through it.
PYTHON ?= python3
# Relative: make takes a space in a path for the end of it.
VENV   := .venv
STAMP  := $(VENV)/.synced

# Generated projects find this uv first, and nothing of the caller's own virtual environment.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
unexport VIRTUAL_ENV UV_PROJECT UV_PROJECT_ENVIRONMENT UV_PYTHON UV_NO_SYNC UV_FROZEN UV_LOCKED UV_NO_DEV PYTHONPATH PYTHONHOME

.PHONY: help setup demo test check matrix chaos fuzz bench pictures docs pins beyond release clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /\1\t/' | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-9s %s\n' "$$name" "$$text"; done

setup: $(STAMP) ## install the tools of this repository into .venv (the other targets run it)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Forge needs Python 3.11 or later; $(PYTHON) is older. Try: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(VENV)/bin/python || { echo "==> creating .venv"; $(PYTHON) -m venv $(VENV); }
	@test -x $(VENV)/bin/uv || { echo "==> installing uv into .venv"; $(VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar on 'uv>=0.13,<0.14'; }
	@echo "==> installing the tools of this repository into .venv"
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(VENV)/bin/uv sync --quiet --python $(VENV)/bin/python
	@touch $@

demo: $(STAMP) ## copy the template, start the project, run real tasks, stop it again
	@$(VENV)/bin/python scripts/demo.py

test: $(STAMP) ## the test suite, with one generated project's whole life (about eight minutes on two cores)
	@$(VENV)/bin/python -m pytest -n 2 --durations=40 $(ARGS)

check: $(STAMP) ## formatter, linters and types on everything
	@$(VENV)/bin/python -m pre_commit run --all-files

matrix: $(STAMP) ## the long tests: every profile on every database, all tests of projects, rare updates, and Docker
	@$(VENV)/bin/python -m pytest -n 2 -m matrix --durations=40 $(ARGS)

chaos: $(STAMP) ## kill the workers and the Redis of a project, and count lost tasks (half an hour; ARGS="--size 0.02": two minutes)
	@PYTHONPATH=scripts $(VENV)/bin/python -m tests.generated.chaos $(ARGS)

fuzz: $(STAMP) ## N random edits of projects through an update, compared with git's own merge (N=1000)
	@FORGE_FUZZ=$(or $(N),1000) $(VENV)/bin/python -m pytest --timeout 0 -s tests/update/test_random_edits.py $(ARGS)

bench: $(STAMP) ## measure worker, publishing, copy and update, and write docs/benchmarks.md; ARGS="worker --quick" for a part
	@PYTHONPATH=scripts $(VENV)/bin/python -m benchmarks $(ARGS)

pictures: $(STAMP) ## take the pictures in docs/pictures again, from real runs and with Chromium
	@mkdir -p docs/pictures
	@FORGE_PICTURES=$(CURDIR)/docs/pictures $(VENV)/bin/python -m pytest -m "matrix or not matrix" tests/test_pictures.py tests/generated/test_task_page.py $(ARGS)

docs: $(STAMP) ## write the generated pages and the listings of examples/, then build the site in site/
	@$(VENV)/bin/python scripts/docs.py

pins: $(STAMP) ## pin the newest versions within the bounds, then check and test with them
	@$(VENV)/bin/python scripts/pins.py $(ARGS)

beyond: $(STAMP) ## run a project's checks and tests on the newest versions beyond the bounds; ARGS="check test": the fast tests
	@$(VENV)/bin/python scripts/beyond.py $(ARGS)

release: $(STAMP) ## write tests/releases/vX.Y.Z.tar.gz for the version on top of CHANGELOG.md
	@$(VENV)/bin/python scripts/release.py

clean: ## remove .venv, site and every cache
	rm -rf .venv site .mypy_cache .pytest_cache .ruff_cache .hypothesis
