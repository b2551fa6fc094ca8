"""Guards on what is committed: no index address, no machine's path, no package that owns our top-level name."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("uv.lock", "poetry.lock", "pylock.toml", "package-lock.json")


def problems() -> list[str]:
    pins = (ROOT / "constraints.txt").read_text()
    found = [
        f"{name} must not be kept: it records a registry's host" for name in LOCKS if (ROOT / name).exists()
    ]
    if "://" in pins or re.search(r"^--(extra-)?index", pins, re.MULTILINE):
        found.append(
            "constraints.txt names an index address; compile it with --no-header and without an index option"
        )
    if re.search(r"^python-daemon==", pins, re.MULTILINE):
        found.append("constraints.txt holds python-daemon, which owns the package name 'daemon' too")
    for package in ("tests", "policies", "systemd"):
        found += [f"{path} would shadow a package" for path in (ROOT / package).rglob("__init__.py")]
    return found


if __name__ == "__main__":
    wrong = problems()
    sys.stdout.write("\n".join(wrong) + "\n" if wrong else "guards: all well\n")
    sys.exit(1 if wrong else 0)
