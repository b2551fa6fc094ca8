"""Resources: what is seen and acted on, as the text `KIND:NAME`. Only this module takes such a text apart."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from daemon.errors import ResourceError

KINDS = ("host", "service", "unit", "path", "process", "net", "url", "container")

_NAMES = {
    "service": re.compile(r"[a-z0-9][a-z0-9._-]{0,63}"),
    "unit": re.compile(r"[A-Za-z0-9:_.@-]{1,200}\.(?:service|socket|timer|target|mount|path|slice|scope)"),
    "process": re.compile(r"[1-9][0-9]{0,9}(?:@[0-9]{1,20})?"),
    "url": re.compile(r"https?://[a-z0-9._:\[\]-]{1,300}(?:[/?][!-~]{0,1000})?"),
    "container": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"),
}


@dataclass(frozen=True, slots=True)
class Resource:
    """A parsed Resource. `str()` gives the one canonical spelling."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


@lru_cache(maxsize=4096)
def parse(text: str) -> Resource:
    """Read `KIND:NAME`. What is not canonical is refused, never repaired: what is judged must be what is acted on.

    Raises ResourceError.
    """
    if text == "host":
        return Resource("host")
    kind, colon, name = text.partition(":")
    if not colon or kind not in KINDS or kind == "host":
        raise ResourceError(
            f"{text!r} is no resource: write KIND:NAME with KIND one of {', '.join(KINDS[1:])}, or host"
        )
    if not name.isascii() or not name.isprintable():
        raise ResourceError(f"{text!r} is no resource: only printable ASCII is accepted in a name")
    _check(kind, name, text)
    return Resource(kind, name)


def _check(kind: str, name: str, text: str) -> None:
    if kind == "path":
        _check_path(name, text)
    elif kind == "net":
        _check_net(name, text)
    elif not _NAMES[kind].fullmatch(name):
        raise ResourceError(f"{text!r} is no {kind}: a name must match {_NAMES[kind].pattern}")


def _check_path(name: str, text: str) -> None:
    parts = name.split("/")
    if (
        not name.startswith("/")
        or len(name) > 4096
        or ".." in parts
        or "." in parts
        or (name != "/" and "" in parts[1:])
    ):
        raise ResourceError(
            f"{text!r} is no path: it must be absolute, without '.', '..', '//' or a trailing '/'"
        )


def _check_net(name: str, text: str) -> None:
    if "%" in name:
        raise ResourceError(f"{text!r} is no address or network: an interface does not belong to it")
    try:
        network = ipaddress.ip_network(name, strict=True)
    except ValueError as exc:
        raise ResourceError(f"{text!r} is no address or network: {exc}") from None
    single = network.prefixlen == network.max_prefixlen
    canonical = str(network.network_address if single else network)
    if mapped := getattr(network.network_address, "ipv4_mapped", None):
        canonical = str(mapped)
    if name != canonical:
        raise ResourceError(f"{text!r} is not written canonically: write net:{canonical}")


@lru_cache(maxsize=4096)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


def matches(pattern: str, text: str) -> bool:
    """Whether the Resource `text` is covered by the Resource glob `pattern` (`*`, `?`, `[...]` within one kind)."""
    if pattern == text:
        return True
    kind, colon, _ = pattern.partition(":")
    # `*` must not reach over the colon: "unit:*" never speaks of a path.
    return bool(colon) and text.startswith(kind + ":") and _glob(pattern).match(text) is not None
