"""A small real service of the demo: speaks HTTP, reads a configuration file, writes a log, hangs on others. Run by path, standard library only.

    service.py NAME PORT DIRECTORY

`DIRECTORY/NAME.conf` is JSON: `{"limit": 10, "needs": ["127.0.0.1:8001"]}`; SIGHUP reads it again. A broken one is not noticed until
requests fail, as in real life.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any


class Service:
    def __init__(self, name: str, directory: Path) -> None:
        self._conf = directory / f"{name}.conf"
        self._log = (directory / f"{name}.log").open("a", buffering=1)
        self._settings: dict[str, Any] | None = None
        self._corrupt = False
        self.read()

    def read(self) -> None:
        try:
            settings = json.loads(self._conf.read_text())
            self._settings = settings if isinstance(settings["limit"], int) else None
        except (OSError, ValueError, KeyError, TypeError):
            self._settings = None
        self._log.write(f"INFO configuration read from {self._conf.name}\n")

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
            status, text = await self._respond(request[0], request[1])
            body = text.encode()
            writer.write(
                f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _respond(self, method: bytes, path: bytes) -> tuple[int, str]:
        if method == b"POST" and path == b"/fault":
            self._corrupt = True
            return 200, "memory is corrupt from now on"
        if self._settings is None:
            return 500, "the configuration cannot be used"
        if self._corrupt:
            return 500, "a worker lost its memory"
        for address in self._settings.get("needs", ()):
            if not await _answers(address):
                self._log.write(f"WARNING no connection to {address}\n")
                return 503, f"{address} does not answer"
        return 200, "well"

    async def complain(self) -> None:
        """Fill the log while the configuration is broken, as services do."""
        while True:
            await asyncio.sleep(0.05)
            if self._settings is None:
                self._log.write("ERROR cannot handle job: limit is not a number\n")


async def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(0.5):
            _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


async def main(name: str, port: int, directory: Path) -> None:
    service = Service(name, directory)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, service.read)
    server = await asyncio.start_server(service.answer, "127.0.0.1", port)
    async with server:
        await service.complain()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
