"""What the parts of a shift are told of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.home import Home

from daemon.app import inventory
from daemon.app.assemble import read_config
from daemon.config.load import Config
from daemon.model.domain import Severity

TEXT = """
[services.db]
unit = "db.service"

[services.app]
depends_on = ["service:db"]
files = ["/etc/app.conf"]
quiet = "7s"
settle = "3s"
restart = "command.mend-app"

[commands.mend-app]
argv = ["/bin/true"]
target = ["service:app"]

[channels.hook]
kind = "webhook"
url = "http://127.0.0.1:9/"
unsigned = true

[channels.pager]
kind = "pagerduty"
key = { env = "PAGER" }
escalation = "theirs"

[routes]
critical = ["pager", "hook"]
error = ["hook"]

[people.anna]
channels = ["hook", "pager"]

[people.ben]
channels = ["hook"]

[[oncall]]
who = ["anna", "ben"]
after = "5m"
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    home = Home(tmp_path)
    home.configure(TEXT)
    return read_config(home.config)


def test_what_belongs_to_what_and_hangs_on_what(config: Config) -> None:
    graph = inventory.graph(config)
    assert graph.node("path:/etc/app.conf") == "service:app"
    assert graph.node("unit:db.service") == "service:db"
    assert graph.hangs_on("path:/etc/app.conf", "unit:db.service")


def test_what_the_loop_knows_of_services(config: Config) -> None:
    known = inventory.inventory(config, inventory.graph(config))
    assert known.verbs == {"service:db": {}, "service:app": {"restart": "command.mend-app"}}
    assert known.settle == {"service:db": 0.0, "service:app": 3.0}


def test_whose_last_good_copy_is_kept(config: Config) -> None:
    kept = inventory.kept_files(config)
    assert [(path, one.service, one.quiet) for path, one in kept.items()] == [
        ("/etc/app.conf", "service:app", 7.0)
    ]


def test_whom_to_tell(config: Config) -> None:
    voices = inventory.voices(config)
    assert list(voices.routes.channels(Severity.CRITICAL)) == ["pager", "hook"]
    assert list(voices.routes.channels(Severity.ERROR)) == ["hook"]
    assert list(voices.routes.channels(Severity.INFO)) == []
    assert voices.people == {"anna": ("hook", "pager"), "ben": ("hook",)}


def test_who_is_called_each_channel_once(config: Config) -> None:
    oncall = inventory.voices(config).oncall
    assert [(step.channels, step.after) for step in oncall.steps] == [(("hook", "pager"), 300.0)]
    assert oncall.theirs == {"pager"}
