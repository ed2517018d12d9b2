"""Open, update or close the one issue with a title, after a job of a workflow: `python scripts/issue.py TITLE RESULT`.

If the result is `success`, the issue is closed; otherwise its body is $REPORT. `gh` reads its token and the repository from the
environment. It uses only the standard library.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

# What GitHub takes is 65,536 characters.
LIMIT = 60_000


def gh(*arguments: str, body: str | None = None) -> str:
    """Run gh and return what it prints."""
    done = subprocess.run(
        ["gh", *arguments], input=body, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True
    )
    return done.stdout


def issue_number(title: str) -> str | None:
    """Return the open issue that a workflow opened with this title. The search of GitHub lags, so this lists."""
    listed = json.loads(gh("issue", "list", "--state=open", "--limit=1000", "--json=number,title,author"))
    numbers = [issue["number"] for issue in listed if issue["title"] == title and issue["author"]["is_bot"]]
    return str(min(numbers)) if numbers else None


def settle(title: str, body: str) -> str:
    """Make the open issue have this body, or close it where the body is empty; return what was done."""
    number = issue_number(title)
    if body:
        if number:
            gh("issue", "edit", number, "--body-file=-", body=body[:LIMIT])
            return f"updated issue {number}"
        return f"opened {gh('issue', 'create', f'--title={title}', '--body-file=-', body=body[:LIMIT]).strip()}"
    if number:
        gh("issue", "close", number, "--comment=Nothing fails any more.")
        return f"closed issue {number}"
    return "nothing to report"


if __name__ == "__main__":
    title, result = sys.argv[1:]
    run = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}".format_map(os.environ)
    report = (
        os.environ["REPORT"] or "The job has no report: it was cancelled, or something other than its tests failed."
    )
    print(settle(title, "" if result == "success" else f"{report}\n\n{result}: {run}\n"))
