"""What systemd is told, by sd_notify(3): a datagram to $NOTIFY_SOCKET, nothing when that is not set."""

from __future__ import annotations

import os
import socket

PATIENCE = 1.0
"""Seconds for a supervisor whose queue is full."""


def notify(*lines: str) -> None:
    """Send `READY=1`, `RELOADING=1`, `STATUS=...`, `STOPPING=1`. A supervisor that does not listen costs nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(PATIENCE)
        try:
            sender.sendto("\n".join(lines).encode(), address)
        except OSError:
            return
