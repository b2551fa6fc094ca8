"""`midwatch policy` and `midwatch runbook`: what the files say, tried out without a daemon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from daemon.cli.ask import verdict_rows
from daemon.cli.local import configured
from daemon.cli.options import FILE, F, as_json
from daemon.cli.options import config as config_option
from daemon.cli.terminal import Cell, Page, Row, show_json

if TYPE_CHECKING:
    from daemon.model.domain import ProposedBy
    from daemon.model.policy import Request
    from daemon.model.runbook import Runbook
    from daemon.policy.engine import Policy

vendor_option = click.option(
    "--vendor", type=FILE, help="Only the rules and packs of this folder, without any configuration."
)


def _reading(command: F) -> F:
    """The options of a verb that reads policy and runbooks."""
    return vendor_option(as_json(config_option(command)))


@click.group()
def policy() -> None:
    """The rules: are they sound, do their tests pass, what would they say."""


@click.group()
def runbook() -> None:
    """The runbooks: what there is, and do their tests pass."""


@policy.command("check")
@_reading
def check(vendor: Path | None, json: bool, config: Path | None) -> None:
    """Read every policy file; list the rules."""
    rules = [
        {"id": rule.id, "effect": rule.effect, "shadow": rule.shadow, "where": rule.where}
        for rule in _policy(vendor, config).rules
    ]
    if json:
        show_json(rules)
        return
    page = Page()
    page.rows([_rule(rule) for rule in rules])
    page.line(f"{len(rules)} rules, all sound", "good")
    page.show()


def _rule(rule: dict[str, Any]) -> Row:
    return [rule["id"], rule["effect"], "shadow" if rule["shadow"] else "", Cell(rule["where"], "quiet")]


@policy.command("test")
@_reading
def run_policy_tests(vendor: Path | None, json: bool, config: Path | None) -> None:
    """Run the inline tests of policy and runbooks. Exit 1 when one fails."""
    from daemon.policy.testing import run_tests

    rules = [
        _result(str(found.where), found.message, found.passed) for found in run_tests(_policy(vendor, config))
    ]
    _report([*rules, *_runbook_results(_runbooks(vendor, config))], json)


def _result(where: str, message: str, passed: bool) -> dict[str, Any]:
    return {"where": where, "passed": passed, "message": message}


def _runbook_results(books: Sequence[Runbook]) -> list[dict[str, Any]]:
    import asyncio

    from daemon.reason.runbooks import run_tests

    results = asyncio.run(run_tests(books))
    return [
        _result(f"runbook {found.runbook}, test {found.number}", found.problem, not found.problem)
        for found in results
    ]


def _report(results: list[dict[str, Any]], json: bool) -> None:
    failed = [found for found in results if not found["passed"]]
    if json:
        show_json(results)
    else:
        page = Page()
        page.rows([[Cell("failed", "error"), found["where"], found["message"]] for found in failed])
        page.line(f"{len(results)} tests, {len(failed)} failed", "error" if failed else "good")
        page.show()
    raise SystemExit(1 if failed else 0)


@policy.command("explain")
@click.argument("action")
@click.argument("target")
@click.option(
    "--severity",
    type=click.Choice(["info", "warning", "error", "critical"]),
    default="error",
    help="Of the incident.",
)
@click.option(
    "--proposed-by",
    type=click.Choice(["runbook", "model", "person"]),
    default="runbook",
    help="Who would like it.",
)
@click.option("--tainted", is_flag=True, help="Only text that an outsider can write speaks for it.")
@click.option("--irreversible", is_flag=True, help="It cannot be taken back.")
@click.option(
    "--size", multiple=True, metavar="NAME=NUMBER", help="How much it would touch, such as files=20."
)
@click.option(
    "--mode",
    type=click.Choice(["observe", "shadow", "ask", "act"]),
    help="The ceiling; as configured if not given.",
)
@_reading
def explain(vendor: Path | None, json: bool, config: Path | None, mode: str | None, **asked: Any) -> None:
    """What the rules would say to one action now, as if nothing had been done before: limits and probation count from none."""
    from daemon.model.domain import Mode
    from daemon.model.policy import Facts
    from daemon.policy.engine import decide

    request = _request(**asked)
    facts = Facts(Mode.parse(mode) if mode else _mode(vendor, config))
    verdict = decide(_policy(vendor, config), request, facts).to_json()
    if json:
        show_json({"request": request.to_json(), "facts": facts.to_json(), "verdict": verdict})
        return
    page = Page()
    page.line(f"{request.action} on {request.target}", "title")
    page.rows(verdict_rows(verdict, facts.to_json()))
    page.show()


def _request(
    action: str,
    target: str,
    severity: str,
    proposed_by: ProposedBy,
    tainted: bool,
    irreversible: bool,
    size: Sequence[str],
) -> Request:
    from daemon.clock import SystemClock
    from daemon.model import resource
    from daemon.model.domain import Severity
    from daemon.model.policy import Request

    return Request(
        action=action,
        target=str(resource.parse(target)),
        params={},
        severity=Severity.parse(severity),
        proposed_by=proposed_by,
        tainted=tainted,
        irreversible=irreversible,
        size=dict(_measured(text) for text in size),
        at=SystemClock().wall(),
    )


def _measured(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not name or not number.isdecimal():
        raise click.UsageError(f"{text!r} is no size: write NAME=NUMBER, such as files=20")
    return name, int(number)


def _mode(vendor: Path | None, config: Path | None) -> Any:
    from daemon.app.assemble import read_config
    from daemon.model.domain import Mode

    return Mode.ACT if vendor is not None else read_config(configured(config)).mode


def _policy(vendor: Path | None, config: Path | None) -> Policy:
    """The rules in question. Raises PolicyError or ConfigError."""
    from daemon.app.assemble import read_config, read_policy
    from daemon.policy import load

    if vendor is None:
        return read_policy(read_config(configured(config)))
    return load.load(
        vendor=[*load.paths(vendor / "rules"), *sorted(vendor.glob("packs/*/rules.toml"))], site=[]
    )


def _runbooks(vendor: Path | None, config: Path | None) -> Sequence[Runbook]:
    from daemon.app.assemble import read_config, read_runbooks
    from daemon.reason import runbooks

    if vendor is None:
        return read_runbooks(read_config(configured(config)))
    return runbooks.load(sorted(vendor.glob("packs/*/runbooks.toml")))


@runbook.command("ls")
@_reading
def ls(vendor: Path | None, json: bool, config: Path | None) -> None:
    """List the runbooks: the signals they answer and the cause they name."""
    books = _runbooks(vendor, config)
    if json:
        show_json(
            [
                book.model_dump(mode="json", include={"id", "signals", "unless", "cause", "confidence"})
                for book in books
            ]
        )
        return
    page = Page()
    page.rows(
        [
            ["ID", "SIGNALS", "REMEDIES", "CAUSE"],
            *([b.id, ", ".join(b.signals), str(len(b.remedy)), b.cause] for b in books),
        ]
    )
    page.show()


@runbook.command("test")
@_reading
def run_runbook_tests(vendor: Path | None, json: bool, config: Path | None) -> None:
    """Run the runbooks' inline tests. Exit 1 when one fails."""
    _report(_runbook_results(_runbooks(vendor, config)), json)
