"""`midwatch demo`: the closed loop on real faults, in a temporary directory, with no key and no privilege."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from daemon.api.timeline import sentence
from daemon.demo.stories import Record, Story, escalated, held, stories
from daemon.demo.world import DemoError, World
from daemon.errors import MidwatchError

PATIENCE = 45.0
"""Seconds for the stories that run side by side, and again for the held one."""
STILL = 3.0
"""Seconds for which a held fault must be left alone, and a fault-free service too."""
LOOK = 0.2
BOOKKEEPING = ("incident.moved", "incident.opened", "approval.used")
"""Journal kinds that say again what the line before said."""
Say = Callable[[str], None]


@dataclass
class Telling:
    """One story as it unfolds."""

    story: Story
    began: float = 0.0
    took: float | None = None
    problem: str = "not looked at"
    seen: int = 0
    """The journal row up to which its timeline was shown."""


@dataclass
class Teller:
    """Injects stories, shows the timeline, judges the ends."""

    world: World
    say: Say
    began: float = field(default_factory=time.monotonic)

    def tell(self, chosen: list[Story]) -> list[Telling]:
        """Run stories side by side until each has ended well or patience is over."""
        telling = [Telling(self._placed(story)) for story in chosen]
        for one in telling:
            self._note(one.story.name, "the fault is injected")
            one.began = time.monotonic()
            one.story.inject(self.world)
        end = time.monotonic() + PATIENCE
        while any(one.took is None for one in telling) and time.monotonic() < end:
            self._look(telling)
            time.sleep(LOOK)
        self._settle(telling)
        return telling

    def tell_held(self, story: Story) -> list[Telling]:
        """A hold file is there first: the fault must be told and left alone until the file goes."""
        one = Telling(self._placed(story), began=time.monotonic())
        one.story.inject(self.world)
        self._note(story.name, "a hold file is there, then the fault is injected")
        if problem := self._left_alone(one):
            one.problem = problem
            return [one]
        self.world.path("hold").unlink()
        self._note(story.name, "the hold file goes")
        end = time.monotonic() + PATIENCE
        while one.took is None and time.monotonic() < end:
            self._look([one])
            time.sleep(LOOK)
        return [one]

    def _left_alone(self, one: Telling) -> str:
        end = time.monotonic() + PATIENCE
        while (record := self._record(one.story)) is None or not self.world.receiver.about(record["id"]):
            if time.monotonic() > end:
                return "it was not told while it was held"
            time.sleep(LOOK)
        time.sleep(STILL)
        record = self._record(one.story)
        if record is not None:
            self._show(one, record)
        return "something was done in spite of the hold" if record is None or record["attempts"] else ""

    def _look(self, telling: list[Telling]) -> None:
        for one in telling:
            record = self._record(one.story)
            if record is not None:
                self._show(one, record)
            one.problem = one.story.judge(self.world, record)
            if one.problem:
                one.took = None
            elif one.took is None:
                one.took = time.monotonic() - one.began

    def _settle(self, telling: list[Telling]) -> None:
        """An end counts only if it lasts: look once more after a while."""
        time.sleep(STILL)
        self._look(telling)

    def _record(self, story: Story) -> Record | None:
        found = [incident for incident in self.world.incidents() if incident["resource"] == story.resource]
        return self.world.incident(found[0]["id"]) if found else None

    def _placed(self, story: Story) -> Story:
        return replace(story, resource=story.resource.format(dir=self.world.directory))

    def _show(self, one: Telling, record: Record) -> None:
        for line in record["timeline"]:
            if line["seq"] > one.seen:
                one.seen = line["seq"]
                if line["kind"] not in BOOKKEEPING or line["payload"].get("held"):
                    self._note(one.story.name, sentence(line["kind"], line["payload"]))

    def _note(self, name: str, words: str) -> None:
        shown = words.replace(str(self.world.directory), "~")
        self.say(f"{time.monotonic() - self.began:6.1f} s  {name:<13} {shown[:150]}")


def main(deny: bool, keep: bool) -> int:
    """Run the demo; gives 0 if every story ended as it must. `keep` leaves the directory for a look."""
    directory = Path(tempfile.mkdtemp(prefix="midwatch-demo-"))
    try:
        with World(directory, deny=deny) as world:
            told = _tell(Teller(world, _say), deny)
            forged = world.receiver.forged
    except MidwatchError as exc:
        sys.stderr.write(f"the demo could not run: {exc}\n")
        return 1
    finally:
        _tidy(directory, keep)
    _say(_table(told))
    if forged:
        _say(f"{forged} messages had no valid signature")
    return 0 if not forged and all(not one.problem for one in told) else 1


def _tell(teller: Teller, deny: bool) -> list[Telling]:
    chosen, last = stories(), held()
    if deny:
        _say("the allow rules are taken out: every repair story must now end with a person being called\n")
        chosen = [
            replace(story, expect="a person is called", judge=escalated) for story in chosen if story.repair
        ]
        last = replace(last, expect="told, then a person is called", judge=escalated)
    told = teller.tell(chosen)
    return told + teller.tell_held(last)


def _table(told: list[Telling]) -> str:
    lines = ["", f"{'story':<13} {'must end in':<46} {'after':>7}  verdict"]
    for one in told:
        after = f"{one.took:.1f} s" if one.took is not None else "-"
        lines.append(
            f"{one.story.name:<13} {one.story.expect:<46} {after:>7}  {'as it must' if not one.problem else one.problem}"
        )
    well = sum(not one.problem for one in told)
    return "\n".join([*lines, "", f"{well} of {len(told)} stories ended as they must"])


def _tidy(directory: Path, keep: bool) -> None:
    import shutil

    if keep:
        _say(f"kept: {directory}")
    else:
        shutil.rmtree(directory, ignore_errors=True)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


__all__ = ["DemoError", "main"]
