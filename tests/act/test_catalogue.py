"""The catalogue: what there is, and the nearest thing to what there is not."""

from __future__ import annotations

import pytest
from fakes.ship import Hands

from actuators.base import Action
from daemon.act.catalogue import Catalogue
from daemon.errors import ActionRefused


def test_an_entry_says_what_it_does_and_whether_there_is_a_way_back() -> None:
    hands = Hands(["restart", "delete"])
    hands.undoable, hands.irreversible = frozenset({"restart"}), frozenset({"delete"})
    entries = Catalogue([hands]).entries()
    assert {(entry.id, entry.undoable, entry.irreversible) for entry in entries.values()} == {
        ("command.restart", True, False),
        ("command.delete", False, True),
    }


def test_a_kind_with_one_thing_to_do_has_no_verb() -> None:
    hands = Hands([""])
    hands.kind = "noop"
    assert Catalogue([hands]).actuator("noop") is hands


@pytest.mark.parametrize(
    ("services", "says"),
    [
        (("app", "web"), "the nearest are app"),
        (("web", "db"), "the nearest are db, web"),
        ((), "there is none"),
    ],
)
async def test_a_service_outside_the_inventory_is_refused_with_what_is_in_it(
    services: tuple[str, ...], says: str
) -> None:
    with pytest.raises(ActionRefused, match=r"service:ap is not in the inventory") as refused:
        await Catalogue([Hands()], services).resolve(Action("command.restart", "service:ap"))
    assert says in str(refused.value)
    assert "add [services.ap] to the configuration" in str(refused.value)


async def test_other_kinds_of_targets_are_left_to_the_actuator() -> None:
    action = await Catalogue([Hands()]).resolve(Action("command.restart", "path:/etc/app.conf"))
    assert action.target == "path:/etc/app.conf"
