"""A process that works off an outbox until it is empty, and that may be told to die on the way (`MIDWATCH_CRASH`).

python -m fakes.sender DATABASE URL
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from fakes.escalations import outbox_rows

from daemon.clock import SystemClock
from daemon.escalate.base import Tools
from daemon.escalate.channels import webhook
from daemon.escalate.dispatch import Dispatcher
from daemon.store.store import Store


async def main(database: Path, url: str) -> None:
    clock = SystemClock()
    store = await Store.open(database, clock, ballast_size=0)
    settings = webhook.WebhookSettings(url=url, unsigned=True)
    channel = webhook.build("ops", settings, Tools(clock.wall, str))
    sending = asyncio.create_task(Dispatcher(store, clock, {"ops": channel}).run())
    while any(row.state == "pending" for row in await outbox_rows(store)):
        await asyncio.sleep(0.01)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await channel.close()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
