"""What hangs on what."""

from __future__ import annotations

from daemon.incidents.graph import Graph

GRAPH = Graph(
    {
        "service:web": ["service:api"],
        "service:api": ["service:db", "service:cache"],
        "service:jobs": ["service:db"],
    },
    {"path:/etc/api.toml": "service:api", "unit:api.service": "service:api"},
)


def test_everything_below_however_far() -> None:
    assert GRAPH.below("service:web") == {"service:api", "service:db", "service:cache"}
    assert GRAPH.below("service:db") == GRAPH.below("host") == frozenset()


def test_a_part_stands_where_its_owner_stands() -> None:
    assert GRAPH.node("path:/etc/api.toml") == "service:api"
    assert GRAPH.hangs_on("path:/etc/api.toml", "service:db")
    assert GRAPH.hangs_on("service:web", "unit:api.service")
    assert GRAPH.parts("service:api") == ("service:api", "path:/etc/api.toml", "unit:api.service")
    assert GRAPH.parts("host") == ("host",)


def test_related_is_the_same_or_above_or_below_but_not_beside() -> None:
    assert GRAPH.related("service:api", "unit:api.service")
    assert GRAPH.related("service:db", "service:web")
    assert GRAPH.related("service:web", "service:db")
    assert not GRAPH.related("service:api", "service:jobs")
    assert not GRAPH.related("host", "service:db")
