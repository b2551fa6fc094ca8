"""The demo's judges can say no: each of them finds what is wrong with a record that is not as it must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from daemon.demo import main as demo
from daemon.demo.receiver import Told
from daemon.demo.stories import Story, escalated, held, stories
from daemon.demo.world import World

ALL = {story.name: story for story in (*stories(), held())}


class Line:
    """A person's line to the daemon."""

    def __init__(self) -> None:
        self.posted: list[str] = []

    def post(self, path: str, body: Mapping[str, Any]) -> None:
        self.posted.append(path)


class Post:
    """What the receiver was told."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    def about(self, incident: str) -> list[Told]:
        return [told for told in self.told if told.data["incident"] == incident]


class Stage:
    """What judges look at, as they find it after all has ended well."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.answers: dict[str, int] = {}
        self.rows: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.receiver = Post()
        self.anna = Line()
        (directory / "spool").mkdir()
        for name in ("dump-028.tmp", "dump-029.tmp", "dump-final.tmp.keep"):
            (directory / "spool" / name).touch()

    def probe(self, name: str) -> int:
        return self.answers.get(name, 200)

    def path(self, name: str) -> Path:
        return self.directory / name

    def incidents(self) -> list[dict[str, Any]]:
        return self.rows

    def status(self) -> dict[str, Any]:
        return {"for_you": self.asked}

    def tell(self, type: str, incident: str = "i-1", **data: Any) -> None:
        self.receiver.told.append(
            Told(f"msg-{len(self.receiver.told)}", type, {"incident": incident, **data})
        )


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def judge(name: str, stage: Stage, record: Mapping[str, Any] | None) -> str:
    return ALL[name].judge(cast(World, stage), record)


def attempts(*actions: str, undone: tuple[str, ...] = ()) -> list[dict[str, str]]:
    done = [{"action": action, "result": "succeeded"} for action in actions]
    return done + [{"action": action, "result": "undone"} for action in undone]


def record(
    *actions: str, state: str = "resolved", undone: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    return {
        "id": "i-1",
        "state": state,
        "reason": "for a reason",
        "title": "a title",
        "attempts": attempts(*actions, undone=undone),
        "signals": [{"resource": f"service:{name}"} for name in ("db", "shop-a", "shop-b", "shop-c")],
        **more,
    }


REPAIRED = {
    "crash": ("web", ["command.start-web"]),
    "hang": ("api", ["command.restart-api"]),
    "bad config": ("billing", ["file.restore", "command.reload-billing"]),
    "one cause": ("db", ["command.start-db"]),
    "approved": ("payments", ["command.start-payments"]),
    "held": ("queue", ["command.start-queue"]),
}


@pytest.mark.parametrize("name", REPAIRED)
def test_a_repair_that_went_well_is_as_it_must(name: str, stage: Stage) -> None:
    assert judge(name, stage, record(*REPAIRED[name][1])) == ""


@pytest.mark.parametrize("name", REPAIRED)
def test_a_repair_that_did_not_go_well_is_found_out(name: str, stage: Stage) -> None:
    service, actions = REPAIRED[name]
    assert judge(name, stage, None) == "not noticed yet"
    assert judge(name, stage, record(state="acting")) == "acting: for a reason"
    assert judge(name, stage, record(*actions, state="escalated")) == "escalated: for a reason"
    assert "instead of" in judge(name, stage, record())
    assert "instead of" in judge(name, stage, record(*actions, "command.stop-everything"))
    assert "instead of" in judge(name, stage, record(*actions, *actions))  # once is enough
    stage.answers[service] = 500
    assert judge(name, stage, record(*actions)) == f"said to be resolved, but {service} answers 500"
    stage.answers[service] = 0
    assert judge(name, stage, record(*actions)) == f"said to be resolved, but {service} answers nothing"


def test_an_action_that_failed_does_not_count_as_done(stage: Stage) -> None:
    failed = record(attempts=[{"action": "command.start-web", "result": "failed"}])
    assert judge("crash", stage, failed) == "done was [] instead of ['command.start-web']"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda spool: (spool / "dump-final.tmp.keep").unlink(), "left in the directory"),
        (lambda spool: (spool / "dump-029.tmp").unlink(), "left in the directory"),
        (lambda spool: (spool / "dump-001.tmp").touch(), "dump-001.tmp"),
    ],
    ids=["precious is gone", "too much is gone", "too little is gone"],
)
def test_a_spool_that_is_not_as_it_must_be_is_found_out(
    stage: Stage, spoil: Callable[[Path], None], says: str
) -> None:
    assert judge("disk filling", stage, None) == "not noticed yet"
    assert judge("disk filling", stage, record(state="open")) == "open: for a reason"
    assert judge("disk filling", stage, record("file.delete")) == ""
    spoil(stage.path("spool"))
    assert says in judge("disk filling", stage, record("file.delete"))


def test_symptoms_must_have_no_incidents_of_their_own_and_must_be_well(stage: Stage) -> None:
    stage.rows = [{"id": "i-2", "resource": "service:shop-b"}]
    assert judge("one cause", stage, record("command.start-db")) == (
        "the symptoms have incidents of their own: ['i-2']"
    )
    stage.rows = []
    lonely = record("command.start-db", signals=[{"resource": "service:db"}])
    assert judge("one cause", stage, lonely) == "the symptoms are not part of it: []"
    stage.answers = {"shop-c": 503}
    assert judge("one cause", stage, record("command.start-db")) == "still failing: ['shop-c']"


def test_the_first_of_two_repairs_must_be_taken_back(stage: Stage) -> None:
    actions, first = ("command.relieve-cache", "command.restart-cache"), ("command.relieve-cache",)
    assert judge("second try", stage, record(*actions, undone=first)) == ""
    assert "was not taken back" in judge("second try", stage, record(*actions))
    assert "instead of" in judge("second try", stage, record(*first, undone=first))
    stage.path("cache.relieved").touch()
    assert "was not taken back" in judge("second try", stage, record(*actions, undone=first))


def test_a_call_needs_a_person_who_was_called_and_hands_that_were_still(stage: Stage) -> None:
    world = cast(World, stage)
    called = record(state="escalated")
    assert escalated(world, None) == "not noticed yet"
    assert escalated(world, record()) == "resolved: for a reason"
    assert escalated(world, called) == "nobody was called yet"
    stage.tell("incident.opened", incident="another one")
    stage.tell("approval.requested")
    assert escalated(world, called) == "nobody was called yet"
    stage.tell("incident.opened")
    assert escalated(world, called) == ""
    assert escalated(world, record("command.start-web", state="escalated")) == (
        "something was done: ['command.start-web']"
    )


def test_a_denial_must_name_its_rule_and_line(stage: Stage) -> None:
    denied = record(state="escalated")
    assert judge("denied", stage, denied) == "nobody was called yet"
    stage.tell("incident.opened", summary="denied")
    assert judge("denied", stage, denied) == "the call names no rule and line"
    stage.tell("incident.opened", summary="denied by ledger-never")
    assert judge("denied", stage, denied) == "the call names no rule and line"
    stage.tell("incident.opened", summary="denied by ledger-never at /x/demo.toml:4")
    assert judge("denied", stage, denied) == ""


def test_anna_approves_payments_and_nothing_else(stage: Stage) -> None:
    stage.asked = [
        {"id": "a-1", "target": "service:payroll"},
        {"id": "a-2", "target": "service:payments"},
    ]
    assert judge("approved", stage, record(state="waiting")) == "waiting: for a reason"
    assert stage.anna.posted == ["/approvals/a-2/approve"]


def test_an_unanswered_question_must_be_asked_and_be_the_reason(stage: Stage) -> None:
    late = record(state="escalated", reason="nobody answered in time: command.start-payroll")
    stage.tell("incident.opened")
    assert "not asked" in judge("unanswered", stage, late)
    stage.tell("approval.requested")
    assert judge("unanswered", stage, late) == ""
    assert "for a reason" in judge("unanswered", stage, record(state="escalated"))


def test_where_there_is_no_fault_nothing_may_happen(stage: Stage) -> None:
    assert judge("no fault", stage, None) == ""
    assert judge("no fault", stage, record(state="open")) == "an incident was opened: a title"
    stage.answers["noisy"] = 0
    assert judge("no fault", stage, None) == "it does not answer"


def test_every_story_is_judged_here() -> None:
    judged = {*REPAIRED, "disk filling", "second try", "denied", "unanswered", "no fault"}
    assert judged == set(ALL)


def test_the_table_says_what_is_wrong_and_counts_it() -> None:
    good, bad = (Story(name, "service:x", "ends well", lambda world: None, escalated) for name in ("a", "b"))
    table = demo._table(
        [demo.Telling(good, took=1.25, problem=""), demo.Telling(bad, problem="nobody was called yet")]
    )
    assert "1.2 s  as it must" in table
    assert "-  nobody was called yet" in table
    assert table.endswith("1 of 2 stories ended as they must")
