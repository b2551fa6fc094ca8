"""The fork server of the torture: everything is imported once, each life is a fork that runs the real App until somebody kills it.

Orders come as lines of JSON on standard input: {"config": PATH, "crash": NAMES, "p": PROBABILITY, "naive": BOOL, "until_idle": BOOL}.
Answers go out as lines of JSON: {"pid": PID} at birth, {"status": WAITSTATUS} at death.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from actuators.base import Outcome
from daemon.act.executor import Executor
from daemon.app.app import App
from daemon.app.registry import actuator_builders, kinds
from daemon.model.domain import State
from daemon.store import crashpoints
from daemon.store.tables import INCIDENT, OUTBOX

LONGEST_LIFE = 20.0
IDLE = 1.0
"""Seconds without anything to do that count as the end of all work."""


class NaiveExecutor(Executor):
    """What everybody writes first: an interrupted action is simply run again. It shows that the checker sees duplicates."""

    async def settle(self, key: str) -> Outcome:
        return await self.run(key)


def _busy(conn: Connection) -> int:
    incidents = (
        select(func.count())
        .select_from(INCIDENT)
        .where(INCIDENT.c.state.not_in((State.RESOLVED, State.ESCALATED)))
    )
    unsent = select(func.count()).select_from(OUTBOX).where(OUTBOX.c.state == "pending")
    return int(conn.execute(incidents).scalar_one() + conn.execute(unsent).scalar_one())


async def _live(order: dict[str, Any]) -> None:
    app = App(Path(order["config"]), executor=NaiveExecutor if order["naive"] else Executor)
    await app.start()
    if not order["until_idle"]:
        await asyncio.sleep(LONGEST_LIFE)
    quiet = 0.0
    while order["until_idle"] and quiet < IDLE:
        await asyncio.sleep(0.1)
        quiet = 0.0 if await app.store.read(_busy) else quiet + 0.1
    await app.stop()


def _be_born(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.environ["MIDWATCH_CRASH"], os.environ["MIDWATCH_CRASH_P"] = order["crash"], str(order["p"])
    crashpoints.arm()
    asyncio.run(_live(order))
    os._exit(0)


def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    kinds()
    actuator_builders()
    for line in sys.stdin:
        pid = _be_born(json.loads(line))
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"status": status}), flush=True)


if __name__ == "__main__":
    main()
