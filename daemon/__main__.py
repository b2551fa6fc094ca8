"""`python -m daemon` is `midwatch run`: what the systemd unit starts."""

from __future__ import annotations

import sys

from daemon.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "run")
    main()
