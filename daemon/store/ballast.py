"""Room kept aside: on a full disk the repair itself must still be journaled, so a file is given up the first time space runs out."""

from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)
SIZE = 16 * 2**20


class Ballast:
    """A file of real blocks beside the database."""

    def __init__(self, path: Path, size: int = SIZE) -> None:
        self._path = path
        self._size = size

    def fill(self) -> None:
        """Make the file again, if there is room for it and as much again."""
        if self._size == 0 or (self._path.exists() and self._path.stat().st_size == self._size):
            return
        room = os.statvfs(self._path.parent)
        if room.f_bavail * room.f_frsize < 2 * self._size:
            return
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.posix_fallocate(handle, 0, self._size)
        except OSError as exc:
            log.warning("no ballast: %s", exc)
            self._path.unlink(missing_ok=True)
        finally:
            os.close(handle)

    def release(self) -> bool:
        """Give the room up; False when it was given up before."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        log.warning("the disk is full: %d MiB of ballast were released for the journal", self._size // 2**20)
        return True
