"""Named places at which a test may end the process, to show that nothing is lost or done twice.

`MIDWATCH_CRASH` holds `all` or a comma list of names, `MIDWATCH_CRASH_P` the probability (0 to 1). Unset, a point costs one comparison.
"""

from __future__ import annotations

import os
import random
import signal

_armed: frozenset[str] = frozenset()
_probability = 0.0
_dice = random.Random()  # noqa: S311


def arm() -> None:
    """Read the environment (again: after a fork the child may be told something else)."""
    global _armed, _probability
    _armed = frozenset(filter(None, os.environ.get("MIDWATCH_CRASH", "").split(",")))
    _probability = float(os.environ.get("MIDWATCH_CRASH_P", "1"))
    _dice.seed(os.urandom(16))


def point(name: str) -> None:
    """End the process here, as `kill -9` would, if this point is armed and the dice say so."""
    if _armed and (name in _armed or "all" in _armed) and _dice.random() < _probability:
        os.kill(os.getpid(), signal.SIGKILL)


arm()
