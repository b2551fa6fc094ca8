"""What an operator wants to write: all that exists loads, and all that does not is refused by name, at its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.app.registry import kinds
from daemon.config.load import Config, load
from daemon.errors import ConfigError
from daemon.model.domain import Mode, Severity

EXAMPLE = Path(__file__).parents[1] / "data" / "config-example.toml"

NOT_BUILT: tuple[tuple[str, str, list[str]], ...] = (
    # what the operator wrote, what is built of it, how the rest is refused
    ('"systemd", "nginx", "tls"', '"service"', ["pack `systemd`", "pack `nginx`", "pack `tls`"]),
    (
        "[alive]\nping  = { credential",
        "[people.nobody]\ntoken = { credential",
        ["`[alive]` is not built yet"],
    ),
    ('"packages", ', "", ["the hold condition `packages` is not built yet"]),
    ('"unit:pg-dump.service", ', "", ["the hold condition `unit:pg-dump.service` is not built yet"]),
    ('logs       = ["journal"]', 'logs = ["/var/log/api.log"]', ["reading the journal is not built yet"]),
    ('kind     = "journal"', 'kind = "log"\npath = "/var/log/api.log"', ["perceiver kind `journal`"]),
    ('kind     = "heartbeat" ', 'kind = "file"\npath = "/var/backups/pg"\n#', ["perceiver kind `heartbeat`"]),
    ('expect   = "24h"\ngrace    = "3h"', "", []),
    (
        '[privileged.old-releases]                       # root-owned file only: what a template unit may do, by name\naction = "file.delete"',
        '[directories.old-releases]\nmatch = ["*"]',
        ["`[privileged]` is not built yet"],
    ),
)


def built() -> str:
    text = EXAMPLE.read_text()
    for wanted, instead, _ in NOT_BUILT:
        assert wanted in text
        text = text.replace(wanted, instead)
    return text


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(built())
    return load(path, kinds())


def test_what_is_not_built_is_refused_by_name() -> None:
    with pytest.raises(ConfigError) as caught:
        load(EXAMPLE, kinds())
    told = [problem.what for problem in caught.value.problems]
    wanted = [name for _, _, names in NOT_BUILT for name in names]
    assert [name for name in wanted if not any(name in what for what in told)] == []
    assert len(told) == len(wanted)
    lines = EXAMPLE.read_text().splitlines()
    for problem in caught.value.problems:
        # What is refused stands in the line that is told.
        file, _, number = problem.where.rpartition(":")
        named = problem.what.split("`")[1].strip("[]") if "`" in problem.what else "journal"
        assert (file, named in lines[int(number) - 1]) == (str(EXAMPLE), True)
        assert problem.hint


def test_what_is_built_loads(config: Config) -> None:
    assert config.mode is Mode.OBSERVE
    assert {name: kind.name for name, (kind, _) in config.channels.items()} == {
        "pager": "pagerduty",
        "ops": "slack",
    }
    assert config.settings.routes.critical == ["pager", "ops"]
    assert [(step.who, step.after) for step in config.settings.oncall] == [(["anna"], 0.0), (["ben"], 900.0)]
    assert config.settings.hold.while_ == ["boot < 10m", "shutdown", "path:/run/midwatch/hold.d"]
    assert config.settings.services["api"].depends_on == ["service:postgres", "service:redis"]


def test_its_signals_are_understood(config: Config) -> None:
    plans = {plan.name: plan for plan in config.perceivers}
    [traceback] = plans["api-errors"].rules
    assert (traceback.count, traceback.window, traceback.severity) == (5, 600.0, Severity.ERROR)
    down, slow = plans["api-latency"].rules
    assert (down.lasting, down.severity) == (30.0, Severity.CRITICAL)
    assert slow.when is not None
    assert (slow.when.kind, slow.when.percentile, slow.when.value, slow.lasting) == (
        "percentile",
        95,
        2.0,
        600.0,
    )
