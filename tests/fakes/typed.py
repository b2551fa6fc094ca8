"""Commands as a person types them, run in this process."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from daemon.cli import main


@dataclass(frozen=True, slots=True)
class Said:
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def typed(*args: str) -> Said:
    """Run `midwatch ARGS`."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main.run(list(args))
        except SystemExit as exc:
            code = int(exc.code or 0)
    return Said(code, out.getvalue(), err.getvalue())
