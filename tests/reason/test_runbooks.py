"""Which runbook speaks of a case, and what it proposes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from daemon.errors import ConfigError
from daemon.model.domain import Proposal, Severity, Signal
from daemon.model.runbook import VERBS, Runbook
from daemon.reason.base import Case
from daemon.reason.runbooks import RunbookReasoner, load, run_tests
from perceivers.base import Observation

PACKS = Path(__file__).parents[2] / "policies" / "packs"
NOW = 1_700_000_000.0
API = "service:api"


def book(id: str = "crashed", **more: Any) -> Runbook:
    more.setdefault("signals", ["service-down"])
    more.setdefault("remedy", [{"steps": [{"verb": "restart"}]}])
    return Runbook.model_validate({"id": id, "cause": "it crashed", "test": [{"signals": ["x"]}], **more})


def signal(name: str = "service-down", resource: str = API, **more: Any) -> Signal:
    more.setdefault("at", NOW)
    return Signal(name, resource, Severity.ERROR, more.pop("state", "firing"), more.pop("at"), name, **more)


def case(
    *signals: Signal,
    recent: Sequence[Signal] = (),
    reads: Mapping[str, Mapping[str, Any]] | None = None,
    tried: Sequence[Proposal] = (),
    verbs: Sequence[str] = VERBS,
    owners: Mapping[str, str] | None = None,
) -> Case:
    async def read(kind: str, resource: str) -> list[Observation]:
        assert resource == API
        return [Observation("p", resource, NOW, reads[kind])] if reads and kind in reads else []

    return Case(
        incident="i-1",
        resource=API,
        severity=Severity.ERROR,
        firing=signals,
        recent=(*signals, *recent),
        read=read,
        now=NOW,
        verbs={API: {verb: f"command.{verb}-api" for verb in verbs}},
        tried=tuple(tried),
        evidence=(7,),
        owners=owners or {},
    )


async def actions(books: Sequence[Runbook], of: Case) -> list[list[str]]:
    diagnosis = await RunbookReasoner(books).diagnose(of)
    return [[step.action for step in remedy.steps] for remedy in diagnosis.remedies]


async def cause(books: Sequence[Runbook], of: Case) -> str:
    return (await RunbookReasoner(books).diagnose(of)).cause


# does it apply? ---------------------------------------------------------------------------------------------------------


async def test_a_signal_at_the_root_makes_it_apply_and_a_symptom_elsewhere_does_not() -> None:
    assert await cause([book()], case(signal())) == "crashed"
    assert await cause([book()], case(signal(resource="service:web"))) == "unknown"
    assert await cause([book()], case(signal("other"))) == "unknown"
    owned = case(signal(resource="unit:api.service"), owners={"unit:api.service": API})
    assert await cause([book()], owned) == "crashed"


async def test_an_exception_counts_at_the_root_only() -> None:
    books = [book(unless=["service-hung"])]
    assert await cause(books, case(signal(), signal("service-hung"))) == "unknown"
    assert await cause(books, case(signal(), signal("service-hung", "service:web"))) == "crashed"


@pytest.mark.parametrize(
    ("recent", "applies"),
    [
        (signal("config-changed", at=NOW - 3599, state="cleared"), True),
        (signal("config-changed", at=NOW - 3601), False),
        (signal("config-changed", resource="service:web"), False),
        (signal("other"), False),
    ],
    ids=["lately", "long ago", "elsewhere", "another"],
)
async def test_a_signal_seen_lately_confirms(recent: Signal, applies: bool) -> None:
    books = [book(confirm=[{"signal": "config-changed", "within": 3600.0}])]
    assert (await cause(books, case(signal(), recent=[recent])) == "crashed") is applies


@pytest.mark.parametrize(
    ("reads", "applies"), [({"http": {"hung": True}}, True), ({"http": {"hung": False}}, False), ({}, False)]
)
async def test_a_fresh_reading_confirms(reads: dict[str, Any], applies: bool) -> None:
    books = [book(confirm=[{"read": "http", "when": "hung"}])]
    assert (await cause(books, case(signal(), reads=reads)) == "crashed") is applies


async def test_the_one_that_knows_most_wins() -> None:
    general, excepting = book("a-general"), book("b-excepting", unless=["x"])
    confirmed = book("c-confirmed", confirm=[{"signal": "service-down"}])
    assert await cause([general, excepting, confirmed], case(signal())) == "c-confirmed"
    assert await cause([general, excepting], case(signal())) == "b-excepting"
    assert await cause([book("book-z"), book("book-y")], case(signal())) == "book-y"


async def test_nothing_fits_is_said_with_what_was_seen() -> None:
    diagnosis = await RunbookReasoner([book()]).diagnose(case(signal("odd"), signal("strange")))
    assert diagnosis.unknown
    assert diagnosis.summary == "no runbook knows odd, strange on service:api"
    assert (diagnosis.evidence, diagnosis.remedies) == ((7,), ())


# what does it propose? -----------------------------------------------------------------------------------------------------


async def test_verbs_are_mapped_by_the_inventory_and_what_is_missing_is_left_out() -> None:
    books = [
        book(remedy=[{"steps": [{"verb": "start"}]}, {"steps": [{"verb": "reload"}, {"verb": "restart"}]}])
    ]
    assert await actions(books, case(signal())) == [
        ["command.start-api"],
        ["command.reload-api", "command.restart-api"],
    ]
    assert await actions(books, case(signal(), verbs=["start", "restart"])) == [["command.start-api"]]


async def test_placeholders_are_filled_with_trusted_readings_at_the_root() -> None:
    step = {
        "action": "file.restore",
        "target": "path:{config-changed.path}",
        "params": {"of": "{service}", "on": "{resource}", "n": 3},
    }
    books = [book(remedy=[{"steps": [step]}])]
    changed = signal("config-changed", values={"path": "/etc/api.conf", "gone": None})
    diagnosis = await RunbookReasoner(books).diagnose(case(signal(), recent=[changed]))
    proposal = diagnosis.remedies[0].steps[0]
    assert proposal.target == "path:/etc/api.conf"
    assert proposal.params == {"of": "api", "on": API, "n": 3}
    assert (proposal.proposed_by, proposal.source, proposal.tainted) == ("runbook", "crashed", False)


@pytest.mark.parametrize(
    "poisoned",
    [
        signal("config-changed", captures={"path": "/etc/shadow"}, samples=("path=/etc/shadow",)),
        signal("config-changed", values={"path": "/etc/shadow"}, tainted=True),
        signal("config-changed", "service:web", values={"path": "/etc/web.conf"}),
        signal("config-changed", values={"path": None}),
    ],
    ids=["captures", "tainted", "elsewhere", "unreadable"],
)
async def test_no_target_comes_from_what_an_outsider_wrote_or_from_elsewhere(poisoned: Signal) -> None:
    books = [book(remedy=[{"steps": [{"action": "file.restore", "target": "path:{config-changed.path}"}]}])]
    assert await actions(books, case(signal(), poisoned)) == []


async def test_the_newest_reading_counts_and_its_text_is_not_filled_again() -> None:
    books = [book(remedy=[{"steps": [{"action": "file.restore", "target": "path:{a.path}"}]}])]
    newest = signal("a", values={"path": "/{resource}"})
    oldest = signal("a", values={"path": "/old"}, at=NOW - 60)
    diagnosis = await RunbookReasoner(books).diagnose(case(signal(), recent=[newest, oldest]))
    assert diagnosis.remedies[0].steps[0].target == "path:/{resource}"


async def test_what_was_tried_is_left_out_and_then_the_next_runbook_has_its_turn() -> None:
    both = [
        {"steps": [{"verb": "start"}]},
        {"steps": [{"action": "http.call", "params": {"name": "drain"}}, {"verb": "start"}]},
    ]
    books = [book("special", unless=["x"], remedy=both), book("general")]
    start = Proposal("command.start-api", API)
    drain = Proposal("http.call", API, {"name": "drain", "timeout": 10})
    assert await actions(books, case(signal())) == [["command.start-api"], ["http.call", "command.start-api"]]
    assert await actions(books, case(signal(), tried=[start])) == [["http.call", "command.start-api"]]
    assert await cause(books, case(signal(), tried=[start])) == "special"
    assert await cause(books, case(signal(), tried=[start, drain])) == "general"
    everything = [start, drain, Proposal("command.restart-api", API)]
    diagnosis = await RunbookReasoner(books).diagnose(case(signal(), tried=everything))
    assert (diagnosis.cause, diagnosis.remedies) == ("special", ())
    assert "nothing is left to try" in diagnosis.summary


async def test_two_verbs_that_mean_one_action_are_tried_once() -> None:
    books = [book(remedy=[{"steps": [{"verb": "start"}]}, {"steps": [{"verb": "restart"}]}])]
    of = case(signal())
    same = Case(
        **{name: getattr(of, name) for name in Case.__slots__}
        | {"verbs": {API: dict.fromkeys(VERBS, "unit.restart")}}
    )
    assert await actions(books, same) == [["unit.restart"]]


async def test_a_fault_that_is_only_told_stays_with_its_runbook() -> None:
    books = [book("only-told", unless=["x"], remedy=[]), book("general")]
    diagnosis = await RunbookReasoner(books).diagnose(case(signal()))
    assert (diagnosis.cause, diagnosis.remedies, diagnosis.summary) == ("only-told", (), "it crashed")


@pytest.mark.parametrize(
    ("signals", "confirm", "tainted"),
    [
        ([signal(tainted=True)], [], True),
        ([signal(tainted=True), signal("other")], [], True),
        ([signal(tainted=True), signal("service-down", "service:web")], [], True),
        ([signal(tainted=True), signal(key="trusted")], [], False),
        ([signal(tainted=True)], [{"read": "http", "when": "down"}], False),
        ([signal(tainted=True)], [{"signal": "service-down"}], True),
    ],
)
async def test_what_only_an_outsiders_text_speaks_for_is_tainted(
    signals: list[Signal], confirm: list[Any], tainted: bool
) -> None:
    books = [book(confirm=confirm)]
    diagnosis = await RunbookReasoner(books).diagnose(case(*signals, reads={"http": {"up": False}}))
    assert [step.tainted for remedy in diagnosis.remedies for step in remedy.steps] == [tainted]


# files ---------------------------------------------------------------------------------------------------------------------

GOOD = """schema = 1
[[runbook]]
id = "a-book"
signals = ["x"]
cause = "something broke"
remedy = [{ steps = [{ verb = "restart" }], settle = "5s", proof = { clear_for = "2s", within = "1m" } }]
test = [{ signals = ["x"], expect = { actions = [["command.restart-app"]] } }]
"""


def test_files_are_read_with_their_units(tmp_path: Path) -> None:
    path = tmp_path / "runbooks.toml"
    path.write_text(GOOD)
    (found,) = load([path])
    assert found.remedy[0].settle == 5.0
    assert found.remedy[0].proof.within == 60.0


@pytest.mark.parametrize(
    ("line", "instead", "told"),
    [
        ('cause = "something broke"', 'cuase = "something broke"', r"runbooks\.toml:5: .*cuase"),
        ('verb = "restart"', 'verb = "explode"', r"runbooks\.toml:6"),
        ('verb = "restart"', 'action = "unit.explode"', r"runbooks\.toml:6: .*no action 'unit\.explode'"),
        ('verb = "restart"', 'verb = "restart", action = "noop"', r"runbooks\.toml:6: .*either"),
        (
            'signals = ["x"]\n',
            'signals = ["x"]\nconfirm = [{ read = "http", when = "p95 > 2s" }]\n',
            r"runbooks\.toml:5: .*history",
        ),
        (
            'signals = ["x"]\n',
            'signals = ["x"]\nconfirm = [{ read = "http", when = "odd" }]\n',
            r"runbooks\.toml:5: .*no condition",
        ),
        ("test = [", "tset = [", "test"),
    ],
)
def test_faults_are_told_with_their_line(tmp_path: Path, line: str, instead: str, told: str) -> None:
    path = tmp_path / "runbooks.toml"
    path.write_text(GOOD.replace(line, instead, 1))
    with pytest.raises(ConfigError, match=told):
        load([path])


def test_an_id_twice_names_both_places(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(GOOD)
    with pytest.raises(
        ConfigError, match=r"b\.toml:3: runbook 'a-book' exists already \(first at .*a\.toml:3\)"
    ):
        load([tmp_path / "a.toml", tmp_path / "b.toml"])


# inline tests ----------------------------------------------------------------------------------------------------------------


async def test_the_shipped_runbooks_pass_their_own_tests() -> None:
    books = load(sorted(PACKS.glob("*/runbooks.toml")))
    assert len(books) >= 6
    results = await run_tests(books)
    assert len(results) == sum(len(book.test) for book in books)
    assert [result for result in results if result.problem] == []


async def test_an_inline_test_that_fails_says_how() -> None:
    wrong = book(
        signals=["x"],
        test=[
            {"signals": ["x"], "expect": {"actions": [["command.start-app"]]}},
            {"signals": ["y"]},
            {"signals": ["x"], "expect": {"applies": False}},
        ],
    )
    problems = [result.problem for result in await run_tests([wrong])]
    assert problems == [
        "expected [['command.start-app']], got [['command.restart-app']]",
        "expected this runbook, got unknown",
        "expected another answer, got crashed",
    ]


async def test_a_runbook_that_shadows_another_is_seen() -> None:
    shadowed = book("general", signals=["x"], test=[{"signals": ["x"]}])
    shadowing = book("special", signals=["x"], unless=["y"], test=[{"signals": ["x"]}])
    problems = {result.runbook: result.problem for result in await run_tests([shadowed, shadowing])}
    assert problems == {"general": "expected this runbook, got special", "special": ""}
