#!/usr/bin/env bash
# copier 9.19.1: a question of type bool takes every word that it does not know for true, given with --data.
#
# The guess was that a word such as "maybe" is refused, as an unknown choice is. Copier casts it with Python's bool():
#   copier copy --data use_cache=maybe ...   exit 0, and `use_cache: true` in the recorded answers
#   copier copy --data use_cache=disabled    likewise true; only no, n, f, false, off, null, none, ~ and numbers of 0 are false
# Needs bash, git and Python 3.11 or later. Seen on Python 3.11. Exits 1 if what it checks has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check copier==9.19.1
mkdir "$folder/template"
cat >"$folder/template/copier.yml" <<'YAML'
use_cache:
  type: bool
  default: false
YAML
cat >"$folder/template/{{ _copier_conf.answers_file }}.jinja" <<'JINJA'
{{ _copier_answers | to_nice_yaml }}
JINJA
for word in maybe disabled; do
  "$folder/venv/bin/copier" copy --quiet --defaults --data "use_cache=$word" "$folder/template" "$folder/$word" 2>/dev/null
  printf '%s: %s\n' "$word" "$(grep use_cache "$folder/$word/.copier-answers.yml")"
  grep -qx 'use_cache: true' "$folder/$word/.copier-answers.yml"
done
