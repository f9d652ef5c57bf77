"""The place of commits in the history of the git repository that a command is called in."""

import re
import subprocess
from collections.abc import Iterable

DIRTY = "-dirty"  # as git describes a commit in which files had changed
_NAME = re.compile(r"[0-9a-f]{4,64}")  # all that is passed on: snapshots may come from anybody
_LONGEST_S = 20.0


def places(names: Iterable[str]) -> dict[str, int] | None:
    """Each name → its place, older commits before those that come of them; with changed files a
    commit comes after itself. None if git does not know them all, or there is no git."""
    wanted = list(dict.fromkeys(names))
    bare = [name.removesuffix(DIRTY) for name in wanted]
    if not wanted or not all(map(_NAME.fullmatch, bare)):
        return None
    whole = _whole(bare)
    if whole is None:
        return None
    listed = _git(["rev-list", "--topo-order", "--reverse", "--stdin"], "\n".join(whole))
    order = {commit: number for number, commit in enumerate(listed.split())}
    if any(commit not in order for commit in whole):
        return None
    return {
        name: 2 * order[commit] + name.endswith(DIRTY)
        for name, commit in zip(wanted, whole, strict=True)
    }


def _whole(names: list[str]) -> list[str] | None:
    """Their full names; None if one is no commit, or could be several."""
    asked = "\n".join(f"{name}^{{commit}}" for name in names)
    lines = _git(["cat-file", "--batch-check"], asked).splitlines()
    found = [line.split() for line in lines]
    if len(found) != len(names) or any(line[1:2] != ["commit"] for line in found):
        return None
    return [line[0] for line in found]


def _git(words: list[str], said: str) -> str:
    """What git answers; empty if it cannot, or takes too long."""
    try:
        return subprocess.run(
            ["git", *words],
            input=f"{said}\n",
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
