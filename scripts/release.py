"""Write the archive of the release that CHANGELOG.md names first, from HEAD: `make release`."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys

from forge_template import NOT_RELEASED, ROOT, git, released_versions

RELEASES = ROOT / "tests" / "releases"


def main() -> None:
    """Archive HEAD, or exit with the reason why not."""
    if git(ROOT, "status", "--porcelain"):
        sys.exit("The working tree has changes: a release is made of a commit. Commit or stash them first.")
    changelog = git(ROOT, "show", "HEAD:CHANGELOG.md")
    versions = released_versions(changelog)
    if not versions or "## [Unreleased]" in changelog:
        sys.exit("CHANGELOG.md must start with a dated version: ## [X.Y.Z] - YYYY-MM-DD, and hold nothing unreleased.")
    archive = RELEASES / f"v{versions[0]}.tar.gz"
    sums = RELEASES / "SHA256SUMS"
    recorded = sums.read_text(encoding="utf-8") if sums.exists() else ""
    if archive.exists() or archive.name in recorded:
        sys.exit(f"{archive.name} exists, and a release is never changed. Write a new version into CHANGELOG.md.")

    excluded = [f":(exclude){folder}" for folder in NOT_RELEASED]
    tree = subprocess.run(
        ["git", "-c", "tar.umask=0022", "archive", "--format=tar", "HEAD", "--", ".", *excluded],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    # No name and no time in the header: the same commit gives the same bytes.
    packed = gzip.compress(tree, compresslevel=9, mtime=0)
    RELEASES.mkdir(parents=True, exist_ok=True)
    archive.write_bytes(packed)
    digest = hashlib.sha256(packed).hexdigest()
    sums.write_text(f"{recorded}{digest}  {archive.name}\n", encoding="utf-8")
    print(f"{archive.relative_to(ROOT)}: {len(packed) / 1024:.0f} KiB, SHA-256 {digest}")
    print("Commit it together with SHA256SUMS; the workflow `Release` then tags the commit before.")


if __name__ == "__main__":
    main()
