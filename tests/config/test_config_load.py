"""A configuration is refused for each fault that a person can write into it, with the line and what to do; a good one gives a whole Config."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.config_kinds import KINDS
from fakes.ordinary import ordinary_user

from daemon.config.load import Config, load
from daemon.errors import ConfigError
from daemon.model.domain import Mode, Severity
from perceivers.base import Rule

WHOLE = """
schema = 1
mode = "ask"
packs = []

[channels.door]
kind = "bell"
url = { env = "BELL" }
quiet = "5s"

[routes]
error = ["door"]
report = { at = "08:30", tz = "Europe/Berlin", to = ["door"] }

[people.anna]
channels = ["door"]

[[oncall]]
who = ["anna"]
after = "5m"

[hold]
while = ["path:/run/midwatch/hold.d", "boot < 10m", "shutdown"]

[services.api]
unit = "api.service"
urls = ["http://127.0.0.1:8001/healthz"]
tcp = ["127.0.0.1:8001", "[::1]:8001"]
logs = ["/var/log/api.log"]
files = ["/etc/api.toml"]
depends_on = ["service:db"]
restart = "command.restart"
[services.db]

[commands.restart]
argv = ["/usr/bin/ctl", "restart", "--how={how}"]
target = ["service:*"]
params.how = { choices = ["soft", "hard"], default = "soft" }

[directories.old]
path = "/srv/old"
match = ["*.tar"]

[calls.drop]
url = "https://localhost/drop"
target = ["service:api"]

[perceivers.web]
kind = "web"
resource = "service:api"
every = "5s"
url = "http://127.0.0.1:8001/"
slow = "3s"
signals = [{ name = "api-down", when = "down", for = "30s", severity = "critical" }]

[perceivers.lines]
kind = "lines"
resource = "service:api"
path = "/var/log/api.log"
signals = [
  { name = "traceback", match = 'Traceback (?P<what>\\w+)', key = "what", count = "5 in 10m" },
  { name = "grown", when = "size > 20MiB" },
]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def read(path: Path, text: str) -> Config:
    path.write_text(text)
    return load(path, KINDS, environ={"HOME": "/home/anna"}, vendor=path.parent / "vendor")


def faults(path: Path, text: str) -> list[str]:
    """What is told of `text`, with the directory taken out."""
    with pytest.raises(ConfigError) as caught:
        read(path, text)
    return [str(problem).replace(f"{path.parent}/", "") for problem in caught.value.problems]


def test_a_whole_configuration(config: Path) -> None:
    got = read(config, WHOLE)
    assert got.mode is Mode.ASK
    assert got.settings.oncall[0].after == 300.0
    kind, bell = got.channels["door"]
    assert (kind.name, bell.model_dump()["quiet"]) == ("bell", 5.0)
    web, lines = got.perceivers
    assert (web.name, web.kind.name, web.resource, web.every, web.timeout) == (
        "web",
        "web",
        "service:api",
        5.0,
        10.0,
    )
    assert web.spec.settings.model_dump() == {
        "url": "http://127.0.0.1:8001/",
        "slow": 3.0,
        "most": 1024,
        "headers": {},
        "body": "",
    }
    assert [(rule.name, rule.severity, rule.lasting) for rule in web.rules] == [
        ("api-down", Severity.CRITICAL, 30.0)
    ]
    assert lines.spec.rules == (Rule("traceback", r"Traceback (?P<what>\w+)", "what"),)
    assert [rule.name for rule in lines.rules] == ["traceback", "grown"]
    assert got.places.policies == config.parent / "policies.d"
    assert got.places.state == Path("/home/anna/.local/state/midwatch")
    assert got.where("services", "api", "unit") == f"{config}:26"


def test_three_lines_are_enough(config: Path) -> None:
    got = read(config, "schema = 1\npacks = []\n")
    assert (got.mode, got.perceivers, got.channels) == (Mode.OBSERVE, [], {})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        # areas, kinds and packs that do not exist
        (
            "[alive]\nping = 1",
            "config.toml:3: `[alive]` is not built yet (take it out; there are calls, channels, commands, ",
        ),
        (
            "[privileged.x]\nup = 1",
            "config.toml:3: `[privileged]` is not built yet (take it out; there are calls, ",
        ),
        (
            "[perceiver.x]",
            "config.toml:3: unknown key `perceiver` (did you mean `perceivers`? accepted: calls, ",
        ),
        (
            "[perceivers.x]\nkind = 'journal'",
            "config.toml:4: there is no perceiver kind `journal` (there are lines, web)",
        ),
        (
            "[perceivers.x]\nkind = 'wab'",
            "config.toml:4: there is no perceiver kind `wab` (did you mean `web`? there are lines, web)",
        ),
        (
            "[perceivers.x]\nevery = '1s'",
            "config.toml:3: perceiver `x` needs a `kind` (there are lines, web)",
        ),
        ("[perceivers]\nx = 1", "config.toml:4: `x`: expected a table, got 1"),
        ("[channels.x]\nkind = 'smoke'", "config.toml:4: there is no channel kind `smoke` (there are bell)"),
        (
            "[hold]\nwhile = ['packages']",
            "config.toml:4: the hold condition `packages` is not built yet (there are path:/FILE",
        ),
        (
            "[hold]\nwhile = ['unit:x.service']",
            "config.toml:4: the hold condition `unit:x.service` is not built yet (there are path:",
        ),
        ("[hold]\nwhile = ['night']", "config.toml:4: `night` is no hold condition (there are path:/FILE"),
        (
            "[hold]\nwhile = ['boot < 10']",
            "config.toml:4: `boot < 10` is no hold condition (there are path:/FILE",
        ),
        (
            "[hold]\nwhile = ['path:run']",
            "config.toml:4: 'run' is no path that is accepted (write it from the root",
        ),
        (
            "[services.a]\nlogs = ['journal']",
            "config.toml:4: reading the journal is not built yet (name the log's file)",
        ),
        # perceivers
        (
            "[perceivers.x]\nkind = 'web'\nurl = 'u'\nslwo = '1s'",
            "config.toml:6: unknown key `slwo` (did you mean `slow`? accepted: body, every, headers, kind, most, resource, signals, slow, ",
        ),
        ("[perceivers.x]\nkind = 'web'", "config.toml:3: `url` is missing (add url = ...)"),
        ("[perceivers.x]\nkind = 'web'\nurl = 3", "config.toml:5: `url`: expected text, got 3"),
        (
            "[perceivers.x]\nkind = 'web'\nurl = 'u'\nevery = 10",
            "config.toml:6: `every`: 10 has no unit (write ",
        ),
        (
            "[perceivers.x]\nkind = 'web'\nurl = 'u'\nevery = '1ms'",
            'config.toml:6: `every`: "1ms" is out of range (at least 0.05s)',
        ),
        (
            "[perceivers.x]\nkind = 'web'\nurl = 'u'\nresource = 'api'",
            "config.toml:6: 'api' is no resource: write KIND:NAME with KIND one of service, ",
        ),
        (
            "[perceivers.x]\nkind = 'web'\nurl = 'u'\nresource = 'service:api'",
            "config.toml:6: service:api is not in the inventory (add [services.api]; there are none)",
        ),
        ("[perceivers.Web]\nkind = 'web'\nurl = 'u'", "config.toml:3: `Web` is no name (lower case letters"),
        (
            "[perceivers.x]\nkind = 'web'\nurl = 'u'\nbody = '(a+)+b'",
            "config.toml:6: the pattern '(a+)+b' is refused: a repetition inside a repetition",
        ),
        # names
        ("[routes]\nerror = ['ops']", "config.toml:4: there is no channel `ops` (there are none)"),
        ("[routes]\nreport = { to = ['ops'] }", "config.toml:4: there is no channel `ops` (there are none)"),
        ("[people.anna]\nchannels = ['ops']", "config.toml:4: there is no channel `ops` (there are none)"),
        (
            "[people.anna]\n[[oncall]]\nwho = ['ana']",
            "config.toml:5: there is no person `ana` (did you mean `anna`? there are anna)",
        ),
        (
            "[services.a]\ndepends_on = ['service:b']",
            "config.toml:4: service:b is not in the inventory (add [services.b]; there are a)",
        ),
        ("[services.a]\ndepends_on = ['b']", "config.toml:4: `b` is no service (write service:NAME)"),
        (
            "[services.a]\nstart = 'command.go'",
            "config.toml:4: there is no action `command.go` (there are file.delete, ",
        ),
        (
            "[services.a]\nstart = 'command.go'\n[commands.go]\nargv = ['/bin/go']\ntarget = ['service:b*']",
            'config.toml:4: command.go may not be used on service:a (add "service:a" to `target` of [commands.go])',
        ),
        (
            "[services.a]\nrestart = 'unit.restart'",
            "config.toml:4: there is no action `unit.restart` (there are file.delete, ",
        ),
        # rings
        (
            "[services.a]\ndepends_on = ['service:b']\n[services.b]\ndepends_on = ['service:a']",
            "config.toml:4: services depend on each other in a ring: service:a -> service:b -> service:a (take one of these out",
        ),
        (
            "[services.a]\ndepends_on = ['service:a']",
            "config.toml:4: services depend on each other in a ring: service:a -> service:a",
        ),
        # places and addresses
        (
            "[services.a]\nfiles = ['etc/x']",
            "config.toml:4: 'etc/x' is no path that is accepted (write it from the root",
        ),
        ("[services.a]\nunit = 'x'", "config.toml:4: 'unit:x' is no unit: a name must match "),
        ("[services.a]\npidfile = 'x'", "config.toml:4: 'x' is no path that is accepted"),
        (
            "[services.a]\nurls = ['ftp://h/']",
            "config.toml:4: 'ftp://h/' is no URL that is accepted (write http://HOST",
        ),
        (
            "[services.a]\nurls = ['http://h:x/']",
            "config.toml:4: 'http://h:x/' is no URL that is accepted (write http://HOST",
        ),
        ("[services.a]\ntcp = ['h:0']", "config.toml:4: 'h:0' is no address (write HOST:PORT"),
        ("[daemon]\nstate = 'x'", "config.toml:4: 'x' is no path that is accepted"),
        ("[directories.d]\npath = 'x'\nmatch = ['*']", "config.toml:4: 'x' is no path that is accepted"),
        ("[calls.c]\nurl = 'h'\ntarget = ['service:*']", "config.toml:4: 'h' is no URL that is accepted"),
        ("[routes]\nreport = { tz = 'Mars', to = [] }", "config.toml:4: `to` is empty (at least 1 needed)"),
        (
            "[channels.a]\nkind = 'bell'\nurl = { env = 'A' }\n[routes]\nreport = { tz = 'Mars', to = ['a'] }",
            "config.toml:7: there is no time zone `Mars` (write it as in Europe/Berlin)",
        ),
        # commands
        (
            "[commands.c]\nargv = ['/bin/c', '{who}']\ntarget = ['service:*']",
            "config.toml:4: the parameter {who} is not declared (add it to `params`: who = { ... })",
        ),
        (
            "[commands.c]\nargv = ['/bin/c']\ntarget = ['service:*']\nparams.who = {}",
            "config.toml:6: the parameter `who` is used nowhere (write {who} in argv or take it out)",
        ),
        (
            "[commands.c]\nargv = ['./c']\ntarget = ['service:*']",
            "config.toml:4: './c' is no program (write its absolute path",
        ),
        (
            "[commands.c]\nargv = []\ntarget = ['service:*']",
            "config.toml:4: `argv` is empty (at least 1 needed)",
        ),
        (
            "[commands.c]\nargv = ['/c']\ntarget = ['service:*']\nundo = []",
            "config.toml:6: `undo` is empty (its first element is the program)",
        ),
        (
            "[commands.c]\nargv = ['/c']\ntarget = ['api']",
            "config.toml:5: 'api' is no resource: write KIND:NAME",
        ),
        (
            "[commands.c]\nargv = ['/c']\ntarget = ['service:api']",
            "config.toml:5: service:api is not in the inventory",
        ),
        (
            "[commands.c]\nargv = ['/c']\ntarget = ['svc:*']",
            "config.toml:5: `svc:*` is no Resource glob (KIND:GLOB",
        ),
    ],
)
def test_each_fault_is_told_with_its_line(config: Path, text: str, told: str) -> None:
    [first] = faults(config, f"schema = 1\npacks = []\n{text}\n")
    assert first.startswith(told)


@pytest.mark.parametrize(
    ("param", "told"),
    [
        (
            "{ pattern = '(a+)+' }",
            "config.toml:6: the pattern '(a+)+' is refused: a repetition inside a repetition",
        ),
        ("{ pattern = '[' }", "config.toml:6: the pattern '[' is refused: it is no regular expression"),
        (
            "{ type = 'integer', pattern = 'x' }",
            "config.toml:6: `pattern` and `choices` belong to strings, this is `integer`",
        ),
        ("{ min = 1 }", "config.toml:6: `min` and `max` belong to integers, this is `string`"),
        ("{ type = 'integer', min = 3, max = 1 }", "config.toml:6: `min` 3 is above `max` 1"),
        (
            "{ type = 'integer', min = 3, default = 1 }",
            "config.toml:6: the default 1 is not what the parameter itself accepts",
        ),
        (
            "{ choices = ['a'], default = 'b' }",
            "config.toml:6: the default 'b' is not what the parameter itself accepts",
        ),
        (
            "{ pattern = 'a+', default = 'ab' }",
            "config.toml:6: the default 'ab' is not what the parameter itself accepts",
        ),
        (
            "{ type = 'boolean', default = 1 }",
            "config.toml:6: the default 1 is not what the parameter itself accepts",
        ),
    ],
)
def test_parameters_are_checked(config: Path, param: str, told: str) -> None:
    text = f"schema = 1\npacks = []\n[commands.c]\nargv = ['/c', '{{p}}']\ntarget = ['service:*']\nparams.p = {param}\n"
    [first] = faults(config, text)
    assert first.startswith(told)


@pytest.mark.parametrize(
    ("signal", "told"),
    [
        (
            "match = '(a+)+'",
            "signal `s`: the pattern '(a+)+' is refused: a repetition inside a repetition can take for ever",
        ),
        ("match = '('", "signal `s`: the pattern '(' is refused: it is no regular expression"),
        ("match = ''", "signal `s`: the pattern '' is refused: it matches the empty text"),
        ("match = 'a', key = 'b'", "signal `s`: `key` names no group of the pattern; write (?P<b>...) in it"),
        ("match = 'a', count = 'five'", "signal `s`: 'five' is no count: write `5 in 10m`"),
        ("match = 'a', when = 'down'", "signal `s`: a signal has either `when` or `match`"),
        ("when = 'status > 3'", "signal `s`: this perceiver reads no 'status'; it reads size"),
        ("when = 'size > big'", "signal `s`: 'big' is no quantity"),
        ("when = 'absent'", "signal `s`: `absent` needs `for`"),
        ("when = 'size > 3', severity = 'fatal'", '`severity`: "fatal" is not accepted (accepted: '),
        (
            "when = 'size > 3', fro = '1s'",
            "unknown key `fro` (did you mean `for`? accepted: clear, clear_after, count, for, ",
        ),
    ],
)
def test_signals_are_checked(config: Path, signal: str, told: str) -> None:
    start = "schema = 1\npacks = []\n[perceivers.x]\nkind = 'lines'\npath = '/x'\n"
    [first] = faults(config, f"{start}signals = [\n  {{ name = 's', {signal} }},\n]\n")
    assert first.startswith(f"config.toml:7: {told}")


def test_a_pattern_belongs_to_kinds_that_read_lines(config: Path) -> None:
    text = "schema = 1\npacks = []\n[perceivers.x]\nkind = 'web'\nurl = 'u'\nsignals = [{ name = 's', match = 'x' }]\n"
    assert faults(config, text) == [
        "config.toml:6: signal `s`: `match` belongs to perceivers that read lines (log)"
    ]


def test_a_signal_name_is_used_once_in_a_perceiver(config: Path) -> None:
    start = "schema = 1\npacks = []\n[perceivers.x]\nkind = 'web'\nurl = 'u'\n"
    text = (
        start
        + "[[perceivers.x.signals]]\nname = 's'\nwhen = 'down'\n[[perceivers.x.signals]]\nname = 's'\nwhen = 'status > 499'\n"
    )
    [told] = faults(config, text)
    assert (
        told
        == "config.toml:9: the signal `s` exists twice in `x` (first at config.toml:6; give them names of their own)"
    )


def test_every_fault_is_told_at_once_in_the_order_of_the_lines(config: Path) -> None:
    text = """
        modde = "act"
        packs = ["nosuch"]
        [channels.c]
        kind = "smoke"
        [daemon]
        grace = 3
        [perceivers.x]
        kind = "journal"
    """
    told = [line.partition(": ")[::2] for line in faults(config, text)]
    assert [where for where, _ in told] == [
        "config.toml",
        "config.toml:2",
        "config.toml:3",
        "config.toml:5",
        "config.toml:7",
        "config.toml:9",
    ]
    assert told[0][1].startswith("`schema` is missing")


def test_a_missing_file_is_told(config: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        load(config, KINDS)


# conf.d --------------------------------------------------------------------------------------------------------------


def parts(config: Path, **files: str) -> None:
    directory = config.parent / "conf.d"
    directory.mkdir()
    for name, text in files.items():
        (directory / f"{name}.toml").write_text(text)


def test_tables_of_several_files_merge(config: Path) -> None:
    parts(
        config, a="[services.api]\nunit = 'api.service'\n[services.db]\n", b="[hold]\nwhile = ['shutdown']\n"
    )
    got = read(config, "schema = 1\npacks = []\n[services.api]\ntcp = ['h:1']\n")
    assert got.settings.services["api"].unit == "api.service"
    assert got.settings.services["api"].tcp == ["h:1"]
    assert got.where("services", "db") == f"{config.parent}/conf.d/a.toml:3"
    assert [path.name for path in got.files] == ["config.toml", "a.toml", "b.toml"]


def test_a_fault_in_a_part_is_told_at_its_own_place(config: Path) -> None:
    parts(config, a="\n[services.api]\nunti = 'x'\n", b="x = \n")
    assert [line.partition(": ")[0] for line in faults(config, "schema = 1\n")] == ["conf.d/b.toml:1"]
    (config.parent / "conf.d" / "b.toml").unlink()
    assert faults(config, "schema = 1\npacks = []\n")[0].startswith(
        "conf.d/a.toml:3: unknown key `unti` (did you mean `unit`?"
    )


def test_a_key_set_twice_is_told_with_both_places(config: Path) -> None:
    parts(
        config,
        a="[services.api]\nunit = 'a.service'\n",
        b="mode = 'act'\n\n[services.api]\nunit = 'b.service'\n",
    )
    assert faults(config, "schema = 1\nmode = 'ask'\n") == [
        "conf.d/b.toml:1: `mode` is set twice (first at config.toml:2; keep one of them)",
        "conf.d/b.toml:4: `services.api.unit` is set twice (first at conf.d/a.toml:2; keep one of them)",
    ]


def test_a_table_and_a_value_of_one_name_are_set_twice(config: Path) -> None:
    parts(config, a="[mode]\nx = 1\n")
    assert faults(config, "schema = 1\nmode = 'ask'\n") == [
        "conf.d/a.toml:1: `mode` is set twice (first at config.toml:2; keep one of them)"
    ]


def test_what_editors_leave_in_conf_d_is_not_read(config: Path) -> None:
    parts(config, a="")
    for name in (".a.toml", "a.toml~", "README"):
        (config.parent / "conf.d" / name).write_text("nonsense")
    assert len(read(config, "schema = 1\npacks = []\n").files) == 2


def test_a_conf_d_that_cannot_be_listed_is_told(config: Path) -> None:
    parts(config, a="")
    config.write_text("schema = 1\n")
    (config.parent / "conf.d").chmod(0)
    with (
        ordinary_user(),
        pytest.raises(ConfigError, match=r"conf\.d: cannot be listed: Permission denied \(make it readable"),
    ):
        load(config, KINDS)
    (config.parent / "conf.d").chmod(0o700)


def test_changed_files_are_noticed(config: Path) -> None:
    parts(config, a="[services.api]\n", b="[services.db]\n")
    got = read(config, "schema = 1\npacks = []\n")
    assert got.changed() == []
    directory = config.parent / "conf.d"
    (directory / "a.toml").write_text("[services.api]\n#\n")
    (directory / "b.toml").unlink()
    (directory / "c.toml").write_text("")
    assert [path.name for path in got.changed()] == ["a.toml", "b.toml", "c.toml"]


# packs ---------------------------------------------------------------------------------------------------------------


def pack(config: Path, name: str, text: str | None) -> None:
    directory = config.parent / "vendor" / "packs" / name
    directory.mkdir(parents=True)
    if text is not None:
        (directory / "perceivers.toml").write_text(text)


PACK = "schema = 1\n[perceivers.front]\nkind = 'web'\nurl = 'theirs'\nslow = '9s'\n[perceivers.back]\nkind = 'web'\nurl = 'theirs'\n"


def test_a_pack_brings_perceivers_and_the_operator_replaces_them_whole(config: Path) -> None:
    pack(config, "web", PACK)
    pack(config, "empty", None)
    got = read(
        config, "schema = 1\npacks = ['web', 'empty']\n[perceivers.front]\nkind = 'web'\nurl = 'mine'\n"
    )
    settings = {plan.name: plan.spec.settings.model_dump() for plan in got.perceivers}
    assert settings["front"]["url"] == "mine"
    assert settings["front"]["slow"] == 2.0
    assert settings["back"]["url"] == "theirs"
    assert [path.name for path in got.files] == ["config.toml", "perceivers.toml"]


def test_an_unknown_pack_is_refused_by_name(config: Path) -> None:
    pack(config, "web", PACK)
    assert faults(config, "schema = 1\npacks = ['web',\n'nginx', '../web']\n") == [
        "config.toml:3: there is no pack `nginx` (there are web)",
        "config.toml:3: there is no pack `../web` (there are web)",
    ]


def test_two_packs_do_not_share_a_name(config: Path) -> None:
    pack(config, "a", PACK)
    pack(config, "b", "schema = 1\n[perceivers.back]\nkind = 'web'\nurl = 'x'\n")
    [told] = faults(config, "schema = 1\npacks = ['a', 'b']\n")
    assert told.startswith(
        "vendor/packs/b/perceivers.toml:2: two packs have a perceiver `back` (first at vendor/packs/a/"
    )


def test_ones_own_ends_the_dispute_of_two_packs(config: Path) -> None:
    pack(config, "a", PACK)
    pack(config, "b", "schema = 1\n[perceivers.back]\nkind = 'web'\nurl = 'x'\n")
    got = read(config, "schema = 1\npacks = ['a', 'b', 'b']\n[perceivers.back]\nkind = 'web'\nurl = 'mine'\n")
    assert [plan.name for plan in got.perceivers] == ["front", "back"]


def test_a_fault_in_a_pack_is_told_there(config: Path) -> None:
    pack(config, "web", "schema = 1\nperceiver = 1\n")
    [told] = faults(config, "schema = 1\npacks = ['web']\n")
    assert told.startswith(
        "vendor/packs/web/perceivers.toml:2: unknown key `perceiver` (did you mean `perceivers`?"
    )
