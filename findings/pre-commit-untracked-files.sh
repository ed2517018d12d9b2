#!/usr/bin/env bash
# pre-commit 4.6.0: a hook that rewrites a file which git does not track yet is reported as Passed.
#
# A hook that changes a tracked file fails, with "files were modified by this hook". The guess was that this holds for every file
# named with --files. pre-commit compares `git diff` before and after, which shows tracked files alone:
#   tracked.txt    Failed, exit 1
#   new.txt        Passed, exit 0, and the file is another one afterwards
# A hook for new files must say by its own exit code that it changed something (ruff: --exit-non-zero-on-fix).
# Needs bash, git, sed and Python 3.11 or later. Seen on Python 3.11. Exits 1 if what it checks has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pre-commit==4.6.0
mkdir "$folder/work"
cd "$folder/work"
git init --quiet
cat >.pre-commit-config.yaml <<'YAML'
repos:
  - repo: local
    hooks:
      - id: rewrite
        name: rewrite
        language: system
        entry: sed -i s/old/new/
        files: \.txt$
YAML
echo old >tracked.txt
git add .
echo old >new.txt
export PRE_COMMIT_HOME="$folder/cache"
for file in tracked.txt new.txt; do
  code=0
  "$folder/venv/bin/pre-commit" run --files "$file" >"$folder/output" || code=$?
  echo "$file: exit $code, now $(cat "$file")"
  if [ "$file" = tracked.txt ]; then [ "$code" = 1 ]; else [ "$code" = 0 ]; fi
  [ "$(cat "$file")" = new ]
done
