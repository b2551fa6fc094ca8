"""The demo as a person runs it: a process of its own, real faults, and a table that must say that all ended as they must."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.home import plain_environment

from daemon.demo.stories import held, stories


@pytest.mark.timeout(240)
@pytest.mark.parametrize("deny", [False, True], ids=["plain", "deny"])
def test_every_story_ends_as_it_must(tmp_path: Path, deny: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "daemon.cli.main", "demo", *(["--deny"] if deny else [])],
        capture_output=True,
        text=True,
        check=False,
        env={**plain_environment(tmp_path), "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        timeout=200,
    )
    told = [story for story in (*stories(), held()) if story.repair or not deny]
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(told)} of {len(told)} stories ended as they must" in done.stdout
    for story in told:
        assert re.search(rf"^{re.escape(story.name)} .* as it must$", done.stdout, re.MULTILINE), story.name
    if deny:
        assert "a person is called" in done.stdout
        assert not re.search(r"\brepaired: ", done.stdout)
    assert list(tmp_path.iterdir()) == []  # nothing is left behind
