"""Wakes a poll when something in a directory changes. Nothing is read from the events but names: what happened is for the poll to find."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable, Iterable, Iterator

_LIBC = ctypes.CDLL(None, use_errno=True)
_MODIFY, _ATTRIB, _MOVED, _CREATE, _DELETE = 0x02, 0x04, 0xC0, 0x100, 0x200
_ONLY_DIRECTORIES = 0x01000000
_WATCHED = _MODIFY | _ATTRIB | _MOVED | _CREATE | _DELETE | _ONLY_DIRECTORIES
_HEADER = struct.Struct("iIII")
_AT_ONCE = 65536
"""Bytes of events taken at a time; some 2000 events. What is left over wakes again."""


class Inotify:
    """Calls `wake` when a name of interest changes in a watched directory.

    At most one wake per `pause` seconds: the first at once, the rest together after the pause. Where inotify is not to be had (its
    limits are shared by all programs of a user), nothing wakes and the schedule does the work.
    """

    def __init__(self, wake: Callable[[], None], interest: Callable[[str], bool], pause: float) -> None:
        """Must be called on a running event loop."""
        self._wake = wake
        self._interest = interest
        self._pause = pause
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._fd = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._readable)

    def watch(self, directories: Iterable[str]) -> None:
        """Watch these too. Watching one again costs a system call and finds it anew after it was replaced; one that is not there, or
        cannot be watched, is passed over."""
        if self._fd >= 0:
            for directory in directories:
                _LIBC.inotify_add_watch(self._fd, os.fsencode(directory), _WATCHED)

    def close(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        # A busy writer must not keep the loop busy: nobody listens during the pause, and the kernel merges what repeats itself.
        self._loop.remove_reader(self._fd)
        self._resume = self._loop.call_later(self._pause, self._loop.add_reader, self._fd, self._readable)
        try:
            names = list(_names(os.read(self._fd, _AT_ONCE)))
        except BlockingIOError:
            return
        if any(not name or self._interest(name) for name in names):
            self._wake()


def _names(events: bytes) -> Iterator[str]:
    """The name that each event is about; empty for the directory itself and for an overflow of the queue."""
    at = 0
    while at < len(events):
        _, _, _, length = _HEADER.unpack_from(events, at)
        at += _HEADER.size
        yield os.fsdecode(events[at : at + length].rstrip(b"\0"))
        at += length
