"""The effect whose doubling the torture looks for: one line a run in a ledger that outlives every life. Run by path.

effect.py do LEDGER | undo LEDGER | probe LEDGER       the key comes from MIDWATCH_KEY
"""

from __future__ import annotations

import os
import sys


def main(verb: str, ledger: str) -> int:
    key = os.environ["MIDWATCH_KEY"]
    if verb == "probe":
        with open(ledger) as lines:
            entries = [line.split() for line in lines]
        done, undone = ["do", key] in entries, ["undo", key] in entries
        return 0 if done and not undone else 1
    handle = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, f"{verb} {key}\n".encode())
    os.fsync(handle)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
