"""What is a Resource, and what a glob covers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import ResourceError
from daemon.model.resource import KINDS, matches, parse

GOOD = [
    "host",
    "service:api",
    "service:a.b-c_1",
    "unit:api.service",
    "unit:postgresql@15-main.service",
    "unit:NetworkManager.service",
    "path:/",
    "path:/var/log/a b.log",
    "process:4711",
    "process:4711@99",
    "net:192.0.2.7",
    "net:192.0.2.0/24",
    "net:2001:db8::1",
    "net:2001:db8::/32",
    "url:https://example.org/healthz?x=1",
    "url:http://[::1]:8080",
    "container:web_1",
]
BAD = [
    "",
    "api",
    "host:",
    "host:x",
    "service:",
    "service:API",
    "service:a b",
    "service:*",
    "service:a\n",
    "Service:api",
    " service:api",
    "unit:api",
    "unit:../api.service",
    "unit:a*.service",
    "unit:api.service\n",
    "unit:a\\x2db.service",
    "unit:äpi.service",
    "path:var",
    "path:/var/",
    "path:/var//log",
    "path:/var/../etc",
    "path:/var/./log",
    "path:/a\nb",
    "path:/a\x00",
    "process:0",
    "process:-1",
    "process:04711",
    "process:4711@",
    "net:192.0.2.7/32",
    "net:192.0.2.7/24",
    "net:192.000.2.7",
    "net:::ffff:192.0.2.7",
    "net:2001:DB8::1",
    "net:2001:db8:0::1",
    "net:2001:db8::1/128",
    "net:localhost",
    "net:fe80::1%eth0",
    "url:HTTPS://example.org",
    "url:https://Example.org",
    "url:https://anna@example.org/",
    "url:ftp://example.org",
    "other:x",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_is_canonical_is_read_and_written_the_same(text: str) -> None:
    assert str(parse(text)) == text


@pytest.mark.parametrize("text", BAD)
def test_what_is_not_canonical_is_refused_never_repaired(text: str) -> None:
    with pytest.raises(ResourceError):
        parse(text)


def test_the_canonical_spelling_is_told() -> None:
    with pytest.raises(ResourceError, match=r"write net:192\.0\.2\.7$"):
        parse("net:::ffff:192.0.2.7")
    with pytest.raises(ResourceError, match="one of service, unit, path"):
        parse("svc:api")


@given(kind=st.sampled_from(KINDS), name=st.text(st.characters(codec="utf-8"), max_size=30))
def test_no_text_is_accepted_that_is_not_its_own_canonical_form(kind: str, name: str) -> None:
    text = f"{kind}:{name}"
    try:
        parsed = parse(text)
    except ResourceError:
        return
    assert str(parsed) == text
    assert text.isascii()
    assert text.isprintable()


@given(st.ip_addresses(network="::/0") | st.ip_addresses(v=4))
def test_every_address_has_one_spelling(address: object) -> None:
    spellings = {
        str(address),
        getattr(address, "exploded", str(address)),
        str(address).upper(),
        f"{address}/128",
        f"{address}/32",
    }
    accepted = set()
    for spelling in spellings:
        try:
            accepted.add(str(parse(f"net:{spelling}")))
        except ResourceError:
            continue
    assert len({text for text in accepted if "/" not in text}) <= 1


@pytest.mark.parametrize(
    ("pattern", "text", "covered"),
    [
        ("unit:*.service", "unit:api.service", True),
        ("unit:postgresql*.service", "unit:postgresql@15-main.service", True),
        ("path:/var/*", "path:/var/log/x", True),
        ("service:[ab]pi", "service:api", True),
        ("host", "host", True),
        ("service:api", "service:api", True),
        ("unit:*", "path:/unit:x", False),
        ("*", "service:api", False),
        ("*:*", "service:api", False),
        ("*:api", "service:api", False),
        ("h*", "host", False),
        ("service:*", "host", False),
        ("service:a", "service:api", False),
        ("[s]ervice:api", "service:api", False),
        ("service:a?i", "service:api", True),
    ],
)
def test_globs_stay_within_their_kind(pattern: str, text: str, covered: bool) -> None:
    assert matches(pattern, text) is covered


@given(
    kind=st.sampled_from(KINDS),
    other=st.sampled_from(KINDS),
    glob=st.text("*?[]a:/", max_size=8),
    name=st.text("a:/*", max_size=8),
)
def test_no_glob_reaches_into_another_kind(kind: str, other: str, glob: str, name: str) -> None:
    if kind != other:
        assert not matches(f"{kind}:{glob}", f"{other}:{name}")
