"""The first configuration loads on any machine, is short, and watches what listens."""

from __future__ import annotations

import socket
import tomllib
from pathlib import Path

from daemon.app.registry import kinds
from daemon.config.load import load
from daemon.config.starter import PORTS, Facts, look, starter
from daemon.model.domain import Mode

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   100        0 1 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
   3: 0A00000A:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4 1 0 100 0 0 10 0
   4: 0100007F:9C40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5 1 0 100 0 0 10 0
"""
TCP6 = """\
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 0
   1: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 0
"""


def proc(root: Path) -> Path:
    (root / "net").mkdir()
    (root / "net/tcp").write_text(TCP)
    (root / "net/tcp6").write_text(TCP6)
    (root / "sys/kernel").mkdir(parents=True)
    (root / "sys/kernel/hostname").write_text("web-1\n")
    return root


def test_what_listens_and_can_be_reached_is_seen(tmp_path: Path) -> None:
    facts = look(proc(tmp_path))
    assert facts == Facts("web-1", ((22, "127.0.0.1:22"), (631, "[::1]:631"), (5432, "127.0.0.1:5432")))


def test_nothing_to_see_is_fine(tmp_path: Path) -> None:
    assert look(tmp_path) == Facts("this host")


def test_this_machine_is_looked_at() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        seen = (port, f"127.0.0.1:{port}") in look().listening
    assert seen == (port < 32768)


def test_it_is_short_and_loads(tmp_path: Path) -> None:
    facts = Facts("web-1", tuple((port, f"127.0.0.1:{port}") for port in range(80, 90)))
    for number, text in enumerate((starter(facts), starter(Facts("bare")), starter())):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        config = load(path, kinds())
        assert config.mode is Mode.OBSERVE
        assert len(text.splitlines()) <= 12
        assert len(config.perceivers) <= 1 + PORTS
    assert [plan.name for plan in load(tmp_path / "0.toml", kinds()).perceivers] == [
        "host",
        "port-80",
        "port-81",
        "port-82",
    ]


def test_the_commented_channel_works_once_it_is_taken_in(tmp_path: Path) -> None:
    lines = [
        line.removeprefix("# ") if line.startswith(("# channels", "# routes")) else line
        for line in starter().splitlines()
    ]
    path = tmp_path / "config.toml"
    path.write_text("\n".join(lines))
    config = load(path, kinds())
    assert list(config.channels) == ["phone"]
    assert config.settings.routes.critical == ["phone"]
    assert tomllib.loads(starter()).keys() >= {"schema", "mode", "packs"}
