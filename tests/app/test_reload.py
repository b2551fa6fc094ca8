"""Reload: what comes into force, what is told, what survives, and what leaves the old one standing."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from fakes.home import ALLOW, Home, until

from daemon.api.client import Problem
from daemon.app.app import App
from daemon.errors import ConfigError, MidwatchError

SH, SLEEP, TOUCH = shutil.which("sh"), shutil.which("sleep"), shutil.which("touch")
WATCH = """
[services.app]
restart = "command.mend-app"

[perceivers.app-log]
kind = "log"
path = "{dir}/app.log"
resource = "service:app"
from_start = true
every = "50ms"
signals = [{ name = "app-broken", match = 'ERROR', count = "COUNT", clear_after = "1h" }]
"""
MEND = """
[commands.mend-app]
argv = ["{sh}", "-c", "echo begun >> {{dir}}/effects; while ! test -e {{dir}}/go-on; do sleep 0.02; done; echo done >> {{dir}}/effects"]
target = ["service:app"]
"""
BOOK = """
schema = 1

[[runbook]]
id = "app-broken"
signals = ["app-broken"]
cause = "the application says itself that it is broken"
remedy = [{ steps = [{ verb = "restart" }], proof = { within = "1h" } }]
test = [{ signals = ["app-broken"], expect = { applies = true } }]
"""


def watch(count: str = "1 in 1h") -> str:
    return WATCH.replace("COUNT", count) + MEND.format(sh=SH)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.write("app.log", "")
    home.write("runbooks.d/app.toml", BOOK)
    home.configure(watch())
    return home


# what comes into force ---------------------------------------------------------------------------------------------


async def test_new_perceivers_rules_and_settings_are_in_force(home: Home) -> None:
    home.configure("", daemon='host = "old-name"')
    async with home.running():
        before = (await home.get("/status"))["self"]
        home.configure(watch(), daemon='host = "new-name"')
        home.allow()
        told = await home.post("/reload")
        after = (await home.get("/status"))["self"]
        [seen, *_] = await home.post("/perceivers/app-log/poll")
    assert (before["host"], before["perceivers"]) == ("old-name", 0)
    assert (after["host"], after["perceivers"], after["rules"]) == ("new-name", 1, before["rules"] + 1)
    assert after["policy"] != before["policy"]
    assert after["uptime"] >= before["uptime"]
    assert seen["resource"] == "service:app"
    line = ALLOW.splitlines().index("[[rule]]") + 1
    assert told == {"newly_allowed": [f"mend at {home.path('policies.d/site.toml')}:{line}"], "perceivers": 1}


async def test_what_was_allowed_before_is_not_told_again(home: Home) -> None:
    home.allow()
    async with home.running():
        assert (await home.post("/reload"))["newly_allowed"] == []


@pytest.mark.parametrize(
    ("law", "says"),
    [
        ('schema = 1\ndisable = ["guard-audit"]\n', "what guard-audit denied, at "),
        ('schema = 1\nenable = ["start-service"]\n', "start-service at "),
        (ALLOW.replace('"allow"', '"require-approval"'), "mend at "),
    ],
)
async def test_every_way_to_allow_more_is_told(home: Home, law: str, says: str) -> None:
    home.configure(watch().replace("packs", "#"))
    home.write("config.toml", home.config.read_text().replace("packs = []", 'packs = ["service"]'))
    async with home.running():
        home.allow(law)
        told = (await home.post("/reload"))["newly_allowed"]
    assert len(told) == 1
    assert told[0].startswith(says)


async def test_a_higher_mode_is_told(home: Home) -> None:
    home.configure(mode="observe")
    async with home.running():
        home.configure(mode="ask")
        assert (await home.post("/reload"))["newly_allowed"] == ["mode ask, which was observe"]
        home.configure(mode="shadow")
        assert (await home.post("/reload"))["newly_allowed"] == []


async def test_a_reload_is_on_record(home: Home) -> None:
    async with home.running() as app:
        await home.post("/reload")
        rows = await app.store.read(
            lambda conn: conn.exec_driver_sql("select kind from journal where kind = 'reloaded'").all()
        )
    assert len(rows) == 1


# what leaves the old one in force ----------------------------------------------------------------------------------


async def test_a_broken_policy_leaves_the_old_one_in_force(home: Home) -> None:
    home.allow()
    async with home.running():
        before = (await home.get("/status"))["self"]
        law = home.allow(ALLOW.replace('effect = "allow"', 'effect = "perhaps"'))
        with pytest.raises(Problem, match=rf"{law}:6: ") as told:
            await home.post("/reload")
        after = (await home.get("/status"))["self"]
    assert told.value.status == 422
    assert (after["policy"], after["policy_trouble"]) == (before["policy"], "")
    assert after["changed_on_disk"] == [str(law)]


async def test_a_failing_policy_test_leaves_the_old_one_in_force(home: Home) -> None:
    async with home.running():
        law = home.allow(
            'schema = 1\ntest = [{ action = "noop", target = "host", expect = { effect = "deny" } }]\n'
        )
        with pytest.raises(Problem, match=f"{law}:2: this test fails"):
            await home.post("/reload")


async def test_a_broken_configuration_leaves_the_old_one_in_force(home: Home) -> None:
    async with home.running():
        home.append("config.toml", "\n[perceivers.more]\nkind = 'weather'\n")
        line = len(home.config.read_text().splitlines())
        with pytest.raises(Problem, match=rf"{home.config}:{line}: .*weather") as told:
            await home.post("/reload")
        assert told.value.status == 422
        assert await home.post("/perceivers/app-log/poll")  # it still looks


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("state", ('state = "{dir}/state"', 'state = "{dir}/elsewhere"')),
        ("socket", ('socket = "{dir}/admin.sock"', 'socket = "{dir}/other.sock"')),
        ("ballast", ('ballast = "0B"', 'ballast = "1MiB"')),
        ("group", ('grace = "0s"', 'grace = "0s"\ngroup = "root"')),
    ],
)
async def test_what_cannot_change_while_it_runs_is_refused_with_its_line(
    home: Home, key: str, text: tuple[str, str]
) -> None:
    async with home.running():
        old, new = (part.replace("{dir}", str(home.directory)) for part in text)
        home.write("config.toml", home.config.read_text().replace(old, new))
        line = next(n for n, row in enumerate(home.config.read_text().splitlines(), 1) if row.startswith(key))
        with pytest.raises(Problem, match=rf"{home.config}:{line}: `{key}` cannot change .*restart midwatch"):
            await home.post("/reload")
        assert await home.get("/status")


async def test_a_token_that_cannot_be_read_leaves_the_old_one_in_force(home: Home) -> None:
    async with home.running():
        home.configure(watch() + '\n[people.anna]\ntoken = { file = "{dir}/anna.key" }\n')
        with pytest.raises(Problem, match=r"anna\.key cannot be read"):
            await home.post("/reload")
        assert await home.post("/perceivers/app-log/poll")


async def test_a_shift_that_cannot_begin_is_said_so_that_the_process_ends(home: Home) -> None:
    async with home.running() as app:
        await app.store.write(lambda tx: tx.conn.exec_driver_sql("drop table cursor"))
        with pytest.raises(MidwatchError, match="cursor"):
            await app.reload()
        assert app.lost.is_set()
        with pytest.raises(Problem, match="midwatch is stopping"):
            await home.post("/reload")


async def test_nothing_is_reloaded_once_it_leaves(home: Home) -> None:
    async with home.running() as app:
        pass
    with pytest.raises(MidwatchError, match="midwatch is stopping"):
        await app.reload()
    await app.reload_and_say()  # says it, and that is all


# what survives -----------------------------------------------------------------------------------------------------


async def test_what_the_detector_counted_survives(home: Home) -> None:
    home.configure(watch("3 in 1h"))
    async with home.running():
        home.append("app.log", "ERROR one\nERROR two\n")
        await until(lambda: _lines_read(home))
        await home.post("/reload")
        assert await home.get("/incidents?all=1") == []
        home.append("app.log", "ERROR three\n")
        record = await home.incident("escalated")
    assert record["title"] == "app-broken on service:app"


async def _lines_read(home: Home) -> bool:
    """Whether everything in the log was read."""
    seen = await home.post("/perceivers/app-log/poll")
    return all(row["values"].get("lines") == 0 for row in seen if not row["rule"])


async def test_a_log_goes_on_where_it_was_each_line_once(home: Home) -> None:
    home.configure(watch("60 in 1h"))
    async with home.running() as app:
        for number in range(5):
            home.append("app.log", f"ERROR {number}\n" * 10)
            await asyncio.gather(app.reload(), home.post("/perceivers/app-log/poll"))
        await until(lambda: _lines_read(home))
        # Fifty lines, and none of them twice: else it would fire by now.
        assert await home.get("/incidents?all=1") == []
        home.append("app.log", "ERROR last\n" * 10)
        await home.incident("escalated")


async def test_open_incidents_questions_and_holds_survive(home: Home) -> None:
    home.allow(ALLOW.replace('"allow"', '"require-approval"'))
    home.path("go-on").touch()
    async with home.running():
        home.append("app.log", "ERROR\n")
        [asked] = await until(lambda: home.get("/approvals"))
        await home.post("/holds/tidying", {"reason": "a person works here"})
        await home.post("/reload")
        assert [hold["name"] for hold in await home.get("/holds")] == ["hold:tidying"]
        assert await home.get("/approvals") == [asked]
        await home.post("/holds/tidying/release")
        await home.post(f"/approvals/{asked['id']}/approve")
        record = await home.incident("verifying")
    assert record["id"] == asked["incident"]
    assert [attempt["result"] for attempt in record["attempts"]] == ["succeeded"]


async def test_a_repair_under_way_is_finished_first(home: Home) -> None:
    home.allow()
    async with home.running() as app:
        home.append("app.log", "ERROR\n")
        await until(lambda: _exists(home, "effects"))
        reload = asyncio.create_task(app.reload())
        assert await home.get("/status")  # people are answered meanwhile
        assert not reload.done()
        home.path("go-on").touch()
        await reload
        record = await home.incident("verifying")
    assert home.path("effects").read_text() == "begun\ndone\n"
    assert [attempt["result"] for attempt in record["attempts"]] == ["succeeded"]


async def _exists(home: Home, name: str) -> bool:
    return home.path(name).exists()


async def test_reloads_never_come_between_an_intent_and_its_action(home: Home) -> None:
    home.allow()
    home.path("go-on").touch()
    async with home.running() as app:
        home.append("app.log", "ERROR\n")
        record = None
        while record is None:
            await app.reload()
            rows = await home.get("/incidents?all=1")
            found = [row["id"] for row in rows if row["state"] in ("verifying", "escalated")]
            record = await home.get(f"/incidents/{found[0]}") if found else None
    assert [(attempt["result"], attempt["reason"]) for attempt in record["attempts"]] == [("succeeded", "")]
    assert home.path("effects").read_text() == "begun\ndone\n"


TURNS = 10


async def test_ten_reloads_leave_nothing_behind(home: Home) -> None:
    home.configure(watch(), daemon='reload_on_change = "1h"')
    async with home.running() as app:
        before = _held()
        for _ in range(TURNS):
            await app.reload()
        await until(lambda: _grown_by_less(before, TURNS))


async def test_those_that_are_refused_leave_nothing_behind(home: Home) -> None:
    async with home.running() as app:
        home.append("config.toml", "\n[daemon]\n")
        before = _held()
        for _ in range(TURNS):
            with pytest.raises(ConfigError):
                await app.reload()
        await until(lambda: _grown_by_less(before, TURNS))


def _held() -> tuple[int, int]:
    """Descriptors and tasks of this process; a few come and go all the time."""
    return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())


async def _grown_by_less(before: tuple[int, int], turns: int) -> bool:
    return all(now - then < turns for now, then in zip(_held(), before, strict=True))


async def test_two_at_once_come_one_after_the_other(home: Home) -> None:
    async with home.running() as app:
        told = await asyncio.gather(app.reload(), app.reload(), home.post("/reload"))
    assert [one["perceivers"] for one in told] == [1, 1, 1]


async def test_stopping_waits_for_a_reload(home: Home) -> None:
    app = App(home.config)
    await app.start()
    reload = asyncio.create_task(app.reload())
    await asyncio.sleep(0)
    await app.stop()
    assert (await reload)["perceivers"] == 1


# what is not watched any more --------------------------------------------------------------------------------------


async def test_what_is_not_watched_any_more_is_over(home: Home) -> None:
    async with home.running():
        home.append("app.log", "ERROR\n")
        open_ = await home.incident("escalated")
        home.configure(watch().replace("app-broken", "app-failing"))
        home.write("runbooks.d/app.toml", BOOK.replace("app-broken", "app-failing"))
        await home.post("/reload")
        record = await home.incident("resolved")
    assert record["id"] == open_["id"]
    assert [signal["state"] for signal in record["signals"]] == ["cleared"]
    assert "it is not watched any more" in str(record["timeline"])


async def test_a_perceiver_that_comes_back_tells_its_trouble_again(home: Home) -> None:
    probe = """
[perceivers.folder]
kind = "file"
path = "{dir}/missing"
resource = "service:app"
every = "50ms"
signals = [{ name = "gone", when = "exists == false", severity = "error" }]
"""
    home.configure(watch() + probe)
    async with home.running():
        first = await home.incident("escalated")
        home.configure(watch())
        await home.post("/reload")
        await home.incident("resolved")
        home.configure(watch() + probe)
        await home.post("/reload")
        again = await home.incident("escalated")
    assert again["id"] == first["id"]
    assert again["reopened"] == 1


async def test_a_rule_that_is_turned_to_something_else_tells_its_trouble_there(home: Home) -> None:
    probe = """
[perceivers.folder]
kind = "file"
path = "{dir}/missing"
resource = "RESOURCE"
every = "50ms"
signals = [{ name = "gone", when = "exists == false", severity = "error" }]
"""
    home.configure(watch() + probe.replace("RESOURCE", "service:app"))
    async with home.running():
        await home.incident("escalated", "service:app")
        home.configure(watch() + probe.replace("RESOURCE", "host"))
        await home.post("/reload")
        await home.incident("resolved", "service:app")
        await home.incident("escalated", "host")


async def test_what_is_watched_as_before_goes_on_firing(home: Home) -> None:
    async with home.running():
        home.append("app.log", "ERROR\n")
        open_ = await home.incident("escalated")
        await home.post("/reload")
        assert (await home.incident("escalated"))["id"] == open_["id"]
        assert [signal["state"] for signal in open_["signals"]] == ["firing"]
