"""The verbs and what answers each."""

from __future__ import annotations

import click

from daemon.cli import ask, audit, doctor, local, policy, tell


class _AsListed(click.Group):
    """Lists its verbs in the order of a working day, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_AsListed, context_settings={"help_option_names": ["-h", "--help"]})
def app() -> None:
    """Stands the watch of a Linux host: sees trouble, repairs what policy allows, proves it, and calls you for the rest."""


ASK = (ask.status, ask.incidents, ask.explain)
TELL = (
    tell.approve,
    tell.reject,
    tell.ack,
    tell.resolve,
    tell.hold,
    tell.pause,
    tell.resume,
    tell.reload,
    tell.notify_test,
)
LOCAL = (
    local.run,
    local.demo,
    local.init,
    local.check,
    doctor.doctor,
    local.perceive,
    policy.policy,
    policy.runbook,
    audit.audit,
)

for verb in (*ASK, *TELL, *LOCAL):
    app.add_command(verb)
