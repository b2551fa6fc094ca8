"""What a configuration watches no longer: its findings could never clear by themselves, its incidents would stay open for ever."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select, update

from daemon.config.load import PerceiverPlan
from daemon.detect.detector import BLIND
from daemon.incidents import correlate
from daemon.store.store import Tx
from daemon.store.tables import DETECTOR_STATE, SIGNAL


def forget(tx: Tx, plans: Sequence[PerceiverPlan]) -> None:
    """Clear the findings that no rule of these perceivers could make, and let the detector begin anew where they were made.

    To be done before the detector is given its state.
    """
    names = {plan.name for plan in plans}
    rules = {(rule.name, rule.resource) for plan in plans for rule in plan.rules}
    blindness = {(plan.name, plan.rules[0].resource if plan.rules else "host") for plan in plans}

    def watched(name: str, resource: str, key: str) -> bool:
        return (key, resource) in blindness if name == BLIND else (name, resource) in rules

    found = tx.conn.execute(select(SIGNAL).where(SIGNAL.c.state == "firing", SIGNAL.c.perceiver.in_(names)))
    for row in found.all():
        if not watched(row.name, row.resource, row.key):
            _begin_anew(tx, row.perceiver, row.name)
    tx.conn.execute(delete(DETECTOR_STATE).where(DETECTOR_STATE.c.id.not_in(names)))
    correlate.retire(tx, watched)


def _begin_anew(tx: Tx, perceiver: str, rule: str) -> None:
    """A rule that watches something else now knows nothing of it: else what fires there would pass for told already."""
    mine = DETECTOR_STATE.c.id == perceiver
    state = tx.conn.execute(select(DETECTOR_STATE.c.state).where(mine)).scalar()
    if state is not None:
        tracks = {name: found for name, found in state["tracks"].items() if name != rule}
        tx.conn.execute(update(DETECTOR_STATE).where(mine).values(state={**state, "tracks": tracks}))
