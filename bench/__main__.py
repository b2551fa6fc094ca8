"""`make bench`: each figure beside its yardstick, measured in the same run on the same machine."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench import decision, fast_path, idle, ready, status

BENCHES = {"decision": decision, "ready": ready, "status": status, "fast": fast_path, "idle": idle}


def main(names: list[str]) -> int:
    """Run the named benches, or all. Gives 1 if a limit was not met."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="midwatch-bench-") as directory:
        for name in names or BENCHES:
            for figure in BENCHES[name].measure(Path(directory)):
                print(figure.row(), flush=True)
                failed += not figure.met
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
