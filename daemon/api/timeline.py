"""An incident's journal rows as sentences: what was seen, thought, asked, decided and done, in the order in which it happened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Payload = Mapping[str, Any]
LONGEST_VALUE = 200
"""Characters shown of a value for which there is no sentence; `--json` has all of it."""


def sentence(kind: str, payload: Payload) -> str:
    """One journal row in words. A kind that is not known here is spelled out as it stands."""
    words = SENTENCES.get(kind)
    return words(payload) if words is not None else _spelled(payload)


def _spelled(payload: Payload) -> str:
    return ", ".join(
        f"{name}: {str(value)[:LONGEST_VALUE]}"
        for name, value in payload.items()
        if value not in (None, "", [], {})
    )


def _action(values: Payload) -> str:
    params = ", ".join(f"{name}={value}" for name, value in (values.get("params") or {}).items())
    return f"{values.get('action')} on {values.get('target')}" + (f" ({params})" if params else "")


def _because(values: Payload, name: str = "reason") -> str:
    return f": {values[name]}" if values.get(name) else ""


def _signal(said: Payload) -> str:
    told = _finding(str(said.get("name")), str(said.get("resource")), said)
    return f"clear again: {told}" if said.get("state") == "cleared" else f"{said.get('severity')}: {told}"


def _finding(name: str, resource: str, said: Payload) -> str:
    """A signal with its summary, which often begins with the signal itself."""
    what, summary = f"{name} on {resource}", str(said.get("summary") or "")
    return summary if summary.startswith(what) else f"{what}: {summary}" if summary else what


def _joined(said: Payload) -> str:
    how = {
        "opened": "it began with",
        "reopened": "it is back",
        "context": "noticed as well",
        "flapping": "flapping",
        "cleared": "clear again",
    }
    name, _, rest = str(said.get("signal")).partition("|")
    return f"{how.get(str(said.get('how')), 'joined by')}: {_finding(name, rest.partition('|')[0], said)}"


def _diagnosis(said: Payload) -> str:
    remedies = len(said.get("remedies") or ())
    told = {0: "nothing to try", 1: "one remedy"}.get(remedies, f"{remedies} remedies, the mildest first")
    sure = "" if said.get("cause") == "unknown" else f"confidence {said.get('confidence', 0):.0%}; "
    return f"{said.get('summary')} ({said.get('by')}; {sure}{told})"


def _verdict(said: Payload) -> str:
    verdict, request = said.get("verdict") or {}, said.get("request") or {}
    return f"{decided(verdict)}: {_action(request)}"


def decided(verdict: Payload) -> str:
    """A verdict in a few words: effect, rule, file and line, reasons."""
    effects = {"allow": "allowed", "require-approval": "to be asked for", "deny": "denied"}
    effect = effects.get(str(verdict.get("effect")), str(verdict.get("effect")))
    shadow = ", but only noted (shadow)" if verdict.get("shadow") else ""
    where = f" at {verdict['where']}" if verdict.get("where") else ""
    reasons = "; ".join(verdict.get("reasons") or ())
    return f"{effect}{shadow} by {verdict.get('rule')}{where}" + (f" ({reasons})" if reasons else "")


def _intent(said: Payload) -> str:
    return f"{'taking back' if said.get('undo_of') else 'about to do'} {_action(said)}, by rule {said.get('rule')}"


def _outcome(said: Payload) -> str:
    return f"{said.get('action')} on {said.get('target')} {said.get('result')}{_because(said)}"


def _proof(said: Payload) -> str:
    return (
        "the fault is seen to be gone"
        if said.get("verified")
        else "the fault is still there: that did not help"
    )


def _moved(said: Payload) -> str:
    return f"now {said.get('state')}{_because(said)}"


def _asked(said: Payload) -> str:
    people = ", ".join(said.get("approvers") or ()) or "anybody known"
    return f"asked {people} whether {_action(said)} may be done ({said.get('approval')})"


def _voted(said: Payload) -> str:
    lost = "" if said.get("counted", True) else f"; it does not count: {said.get('why')}"
    return f"{said.get('person')} said {'yes' if said.get('yes') else 'no'} to {said.get('approval')}{_because(said)}{lost}"


def _control(said: Payload) -> str:
    lasts = f" for {said['for']}" if said.get("for") else ""
    return f"{said.get('name')} set by {said.get('by')}{lasts}{_because(said)}"


SENTENCES: Mapping[str, Callable[[Payload], str]] = {
    "signal": _signal,
    "incident.opened": lambda said: f"opened: {said.get('title')}",
    "incident.signal": _joined,
    "incident.root": lambda said: f"the root lies deeper: {said.get('to')}, not {said.get('from')}",
    "incident.merged": lambda said: f"{said.get('gone')} ({said.get('resource')}) is part of this",
    "incident.reopened": lambda said: f"reopened (time {said.get('times')})",
    "incident.moved": _moved,
    "incident.acknowledged": lambda said: f"{said.get('by')} has it",
    "incident.escalated": lambda said: f"handed over to a person{_because(said)}",
    "incident.resolved": lambda said: f"over{_because(said)}",
    "diagnosis": _diagnosis,
    "verdict": _verdict,
    "proposal.refused": lambda said: f"cannot be done: {_action(said)}{_because(said)}",
    "intent": _intent,
    "outcome": _outcome,
    "proof": _proof,
    "approval.asked": _asked,
    "approval.vote": _voted,
    "approval.void": lambda said: f"{said.get('approval')} is not needed any more{_because(said)}",
    "approval.expired": lambda said: f"nobody answered {said.get('approval')} in time",
    "approval.used": lambda said: f"{said.get('approval')} is used: it counts for this one action",
    "oncall.called": lambda said: f"on call: told {', '.join(said.get('channels') or ()) or 'nobody anew'}",
    "incident.stumbled": lambda said: f"a fault of midwatch's own is in the way{_because(said)}",
    "message.sent": lambda said: f"told {said.get('channel')} ({said.get('event')})",
    "message.failed": lambda said: f"could not tell {said.get('channel')}{_because(said, 'error')}",
    "message.undelivered": lambda said: (
        f"{said.get('channel')} cannot be reached{_because(said, 'error')}; told {', '.join(said.get('told') or ()) or 'nobody else'}"
    ),
    "control.set": _control,
    "control.cleared": lambda said: f"{said.get('name')} ended by {said.get('by')}",
}
"""Journal kind → its sentence."""
