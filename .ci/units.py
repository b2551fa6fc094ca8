"""Checks of the unit files by systemd's own tools: sound, and exposed no more than 1.5. Says so when systemd is not there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
THRESHOLD = "15"
"""Tenths of systemd's exposure level."""


def problems(unit: Path) -> list[str]:
    """What systemd says against a unit. The commands are not installed here, so others stand in for them."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / unit.name
        copy.write_text(re.sub(r"^(Exec\w+=)\S+", r"\1/bin/true", unit.read_text(), flags=re.MULTILINE))
        verify = _run("verify", "--man=no", str(copy))
        security = _run("security", "--offline=true", f"--threshold={THRESHOLD}", str(copy))
    found = [f"{unit.name}: {verify.stdout}"] if verify.returncode else []
    return found + ([f"{unit.name}: too exposed\n{security.stdout}"] if security.returncode else [])


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def main() -> int:
    if shutil.which("systemd-analyze") is None:
        sys.stdout.write("unit files: not checked, there is no systemd-analyze (apt-get install systemd)\n")
        return 0
    wrong = [problem for unit in sorted((ROOT / "systemd").glob("*.service")) for problem in problems(unit)]
    sys.stdout.write("\n".join(wrong) + "\n" if wrong else "unit files: all well\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
