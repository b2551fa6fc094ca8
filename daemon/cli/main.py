"""`midwatch`: the verbs, the exit codes, and the one place that turns errors into words."""

from __future__ import annotations

import sys

import daemon

FAILURE = 1
NOT_RUNNING = 3
BAD_CONFIGURATION = 78
INTERRUPTED = 130
UNPROCESSABLE = 422
"""HTTP: the daemon found the files unsound and keeps the old ones."""


def main() -> None:
    """The entry point of `midwatch` and of `python -m daemon.cli.main`. Ends the process with an exit code."""
    # python-daemon owns the top-level name `daemon` too, and installers overwrite silently: half of it would be theirs.
    if getattr(daemon, "__distribution__", "") != "midwatch":
        sys.stderr.write(
            "another distribution overwrote 'daemon': install midwatch into an environment of its own\n"
        )
        sys.exit(BAD_CONFIGURATION)
    sys.exit(run())


def run(args: list[str] | None = None) -> int:
    """One command (`sys.argv` by default); gives its exit code, or raises SystemExit with it. What went wrong is on stderr."""
    from daemon.api.client import Problem
    from daemon.cli.app import app
    from daemon.cli.terminal import complain
    from daemon.errors import ConfigError, MidwatchError, NotRunning, PolicyError

    try:
        code = app(args, prog_name="midwatch")
    except NotRunning as exc:
        complain(str(exc))
        return NOT_RUNNING
    except (ConfigError, PolicyError) as exc:
        complain(str(exc))
        return BAD_CONFIGURATION
    except Problem as exc:
        complain(str(exc))
        return BAD_CONFIGURATION if exc.status == UNPROCESSABLE else FAILURE
    except (MidwatchError, OSError) as exc:
        complain(str(exc))
        return FAILURE
    except KeyboardInterrupt:
        return INTERRUPTED
    return int(code or 0)


if __name__ == "__main__":
    main()
