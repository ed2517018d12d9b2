#!/usr/bin/env bash
# copier 9.19.1: a question with `when: false` takes an answer given with --data, renders with it, and does not record it.
#
# Such questions serve as computed values. The guess was that --data cannot set what is never asked:
#   copier copy --data color_code=red ...     the file has "red", although its default computes "#00f"
#   .copier-answers.yml                       has no color_code
#   copier update                             keeps "red": the renders it compares both have "#00f", so it takes red for an edit
# A computed name in --data therefore gives a project that its own answers do not describe, and no update tells.
# Needs bash, git and Python 3.11 or later. Seen on Python 3.11. Exits 1 if what it checks has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export GIT_CONFIG_GLOBAL=/dev/null
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check copier==9.19.1
commit() { git -C "$1" -c user.name=A -c user.email=a@example.org commit --quiet --all --allow-empty --message "$2"; }
mkdir "$folder/template"
git -C "$folder/template" init --quiet
cat >"$folder/template/copier.yml" <<'YAML'
color:
  type: str
  default: blue
color_code:
  type: str
  when: false
  default: "{{ {'blue': '#00f'}[color] }}"
YAML
printf '{{ color_code }}\n' >"$folder/template/style.txt.jinja"
printf '{{ _copier_answers | to_nice_yaml }}\n' >"$folder/template/{{ _copier_conf.answers_file }}.jinja"
git -C "$folder/template" add --all
commit "$folder/template" one
git -C "$folder/template" tag v1
"$folder/venv/bin/copier" copy --quiet --defaults --data color_code=red "$folder/template" "$folder/project" 2>/dev/null
printf 'copied:  %s, recorded: %s\n' "$(cat "$folder/project/style.txt")" "$(grep -c color_code "$folder/project/.copier-answers.yml" || true)"
grep -qx red "$folder/project/style.txt"
! grep -q color_code "$folder/project/.copier-answers.yml"
git -C "$folder/project" init --quiet
git -C "$folder/project" add --all
commit "$folder/project" project
commit "$folder/template" two
git -C "$folder/template" tag v2
(cd "$folder/project" && "$folder/venv/bin/copier" update --quiet --defaults 2>/dev/null)
printf 'updated: %s\n' "$(cat "$folder/project/style.txt")"
grep -qx red "$folder/project/style.txt"
