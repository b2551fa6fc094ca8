"""A first configuration for this machine: ten lines that are a useful watch, and the start of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PORTS = 3
"""So many listening ports become perceivers; the rest is for `midwatch discover` and the operator."""
_LISTENS = "0A"
_EPHEMERAL = 32768
"""Ports from here on are mostly handed out by the kernel, gone by the next start."""
# As /proc/net/tcp and tcp6 write them: loopback, and every address, which loopback reaches as well.
_REACHED = {
    "0100007F": "127.0.0.1",
    "00000000": "127.0.0.1",
    "00000000000000000000000001000000": "[::1]",
    "00000000000000000000000000000000": "[::1]",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen of the machine."""

    host: str
    listening: tuple[tuple[int, str], ...] = ()
    """(port, address as a perceiver takes it), lowest first, each port once."""


def look(proc: Path = Path("/proc")) -> Facts:
    """See what is cheap to see; what cannot be read is left out."""
    found: dict[int, str] = {}
    for table in ("net/tcp6", "net/tcp"):
        found |= dict(_listening(_read(proc / table)))
    host = _read(proc / "sys/kernel/hostname").strip()
    return Facts(
        host or "this host", tuple(sorted((port, f"{address}:{port}") for port, address in found.items()))
    )


def starter(facts: Facts | None = None) -> str:
    """The text of a config.toml."""
    facts = facts or look()
    lines = [
        f"# The watch on {facts.host}. docs/configuration.md explains every key; `midwatch check` tells what is wrong.",
        "schema = 1",
        'mode   = "observe"              # it looks and tells, and acts on nothing',
        'packs  = ["host", "service"]    # disks, memory, read-only file systems; what is known of services',
        "",
        "# Whom to tell: take off the # and put the topic's name into the variable.",
        '# channels.phone = { kind = "ntfy", topic = { env = "MIDWATCH_TOPIC" } }',
        '# routes = { critical = ["phone"], error = ["phone"] }',
        "",
    ]
    return (
        "\n".join(lines + [_port(port, address) for port, address in facts.listening[:PORTS]]).rstrip() + "\n"
    )


def _port(port: int, address: str) -> str:
    signal = f'{{ name = "port-{port}-closed", when = "down", for = "30s" }}'
    return f'perceivers.port-{port} = {{ kind = "tcp", address = "{address}", signals = [{signal}] }}'


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _listening(table: str) -> list[tuple[int, str]]:
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 4 or fields[3] != _LISTENS:
            continue
        address, _, port = fields[1].partition(":")
        if address in _REACHED and int(port, 16) < _EPHEMERAL:
            found.append((int(port, 16), _REACHED[address]))
    return found
