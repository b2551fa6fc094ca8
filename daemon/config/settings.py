"""What people may write in the configuration. Every table is strict: an unknown key is an error, with a suggestion.

Durations (`Seconds`), sizes (`Bytes`) and shares (`Share`) are written with their unit; `daemon.config.strict` turns them into numbers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Unit
from pydantic import BaseModel, ConfigDict, Field, model_validator

Seconds = Annotated[float, Unit("s")]
Bytes = Annotated[int, Unit("B")]
Share = Annotated[float, Unit("%")]
ModeWord = Literal["observe", "shadow", "ask", "act"]
SeverityWord = Literal["info", "warning", "error", "critical"]
NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"


class Strict(BaseModel):
    """The base of everything that is read from files that people edit."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Secret(Strict):
    """Where a secret is to be read from; it never stands in the file itself."""

    credential: str | None = None
    """A file of that name in $CREDENTIALS_DIRECTORY (systemd's LoadCredential)."""
    file: str | None = None
    """An absolute path; refused when others may read it."""
    env: str | None = None
    """An environment variable."""

    @model_validator(mode="after")
    def _one_of(self) -> Secret:
        if sum(source is not None for source in (self.credential, self.file, self.env)) != 1:
            raise ValueError("a secret has exactly one of `credential`, `file`, `env`")
        return self


class DaemonSettings(Strict):
    """Where midwatch keeps its things and how it starts. All optional."""

    state: str | None = None
    """Directory of the journal and the kept copies. Default: $STATE_DIRECTORY, else $XDG_STATE_HOME/midwatch, else ~/.local/state/midwatch."""
    socket: str | None = None
    """Path of the API's socket. Default: $RUNTIME_DIRECTORY/admin.sock, else $XDG_RUNTIME_DIR/midwatch/admin.sock, else STATE/admin.sock."""
    policies: str | None = None
    """Directory of the site's policy files. Default: `policies.d` beside the configuration file."""
    runbooks: str | None = None
    """Directory of the site's own runbooks. Default: `runbooks.d` beside the configuration file."""
    group: str | None = None
    """The group that may use the socket."""
    host: str | None = None
    """The name under which this host is told of. Default: the machine's own."""
    grace: Seconds = 20.0
    """After the start, what fires is held back this long before it opens an incident."""
    keep: Seconds = 90 * 86400.0
    """How long journal rows and closed incidents are kept."""
    ballast: Bytes = 16 * 2**20
    """Room kept aside for the journal, released when the disk is full; `0B` for none."""
    reload_on_change: Seconds | None = None
    """Reload by itself once the files have not changed for so long. Default: only `midwatch reload` does."""


class ReportSettings(Strict):
    """When and where the morning report goes."""

    at: str = Field(default="08:30", pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")
    tz: str | None = None
    """A name of the time zone database, such as `Europe/Berlin`. Default: the machine's own."""
    to: list[str] = Field(min_length=1)


class RoutesSettings(Strict):
    """Severity → the channels that are told. `report` is accepted and kept for the morning report."""

    critical: list[str] = Field(default_factory=list)
    error: list[str] = Field(default_factory=list)
    warning: list[str] = Field(default_factory=list)
    info: list[str] = Field(default_factory=list)
    report: ReportSettings | None = None


class PersonSettings(Strict):
    channels: list[str] = Field(default_factory=list)
    token: Secret | None = None
    """What proves the person over HTTP; without one, the login name on the socket does."""


class OnCallStep(Strict):
    who: list[str] = Field(min_length=1)
    after: Seconds = 0.0
    """Seconds after the escalation."""


class HoldSettings(Strict):
    while_: list[str] = Field(default_factory=list, alias="while")
    """`path:/FILE_OR_DIRECTORY`, `boot < 10m`, `shutdown`."""


class ServiceSettings(Strict):
    """One entry of the inventory: what may be a target, how it is acted on, and what it hangs on."""

    unit: str | None = None
    pidfile: str | None = None
    urls: list[str] = Field(default_factory=list)
    tcp: list[str] = Field(default_factory=list)
    logs: list[str] = Field(default_factory=list)
    files: list[str] = Field(default_factory=list)
    """Absolute paths whose last good copies are kept, by hash."""
    quiet: Seconds = 600.0
    """A copy counts as good once nothing was wrong with the service for so long while it was in use."""
    depends_on: list[str] = Field(default_factory=list)
    """`service:NAME` each."""
    start: str | None = None
    """The action (`command.NAME`, `http.call`, ...) that a runbook's verb of this name means for this service; likewise the next four."""
    restart: str | None = None
    reload: str | None = None
    stop: str | None = None
    relieve: str | None = None
    """Make it easier for the service without stopping it: drop a cache, shed a queue."""
    settle: Seconds = 0.0
    """After an action the proof is not looked at for so long."""


class SignalSettings(Strict):
    """One rule of a perceiver; `when` and `match` are explained in docs/signals.md."""

    name: str = Field(pattern=NAME)
    when: str | None = None
    match: str | None = None
    key: str | None = None
    count: str | None = None
    for_: Seconds = Field(default=0.0, alias="for")
    clear: str | None = None
    clear_after: Seconds | None = None
    severity: SeverityWord = "error"
    summary: str | None = None


class PerceiverSettings(Strict):
    """What every kind of perceiver has; the kind's own keys stand beside these and are checked by the kind."""

    kind: str
    resource: str = "host"
    every: Seconds = Field(default=30.0, ge=0.05)
    timeout: Seconds = Field(default=10.0, gt=0)
    signals: list[SignalSettings] = Field(default_factory=list)


class PackSettings(Strict):
    """A pack's `perceivers.toml`."""

    version: Literal[1] = Field(alias="schema")
    perceivers: dict[str, dict[str, Any]] = Field(default_factory=dict)


class ParamSettings(Strict):
    """One typed parameter of a command. Nothing is coerced: a number is a number."""

    type: Literal["string", "integer", "boolean"] = "string"
    pattern: str | None = None
    """`string`: what the whole value must match."""
    choices: list[str] | None = None
    min: int | None = None
    max: int | None = None
    default: str | int | bool | None = None


class CommandSettings(Strict):
    """A command that the admin declares: the action `command.NAME`. There is no shell: each element of `argv` is one argument,
    and `{param}` stands for a parameter's whole, checked value."""

    argv: list[str] = Field(min_length=1)
    target: list[str] = Field(min_length=1)
    """Resource globs that it may be used on, such as `service:api`."""
    describe: str = ""
    params: dict[str, ParamSettings] = Field(default_factory=dict)
    timeout: Seconds = 30.0
    cwd: str = "/"
    env: dict[str, str] = Field(default_factory=dict)
    """All of its environment, besides MIDWATCH_KEY (the idempotency key) and MIDWATCH_TARGET."""
    ready: list[str] | None = None
    """argv: must exit 0 right before acting."""
    verify: list[str] | None = None
    """argv: exits 0 when the effect is there."""
    undo: list[str] | None = None
    """argv: takes the effect back."""
    probe: list[str] | None = None
    """argv: after a crash, exit 0 = the effect of MIDWATCH_KEY happened, 1 = it did not; anything else: cannot tell."""
    irreversible: bool = False


class KeepSettings(Strict):
    newest: int = Field(default=0, ge=0)
    """So many of the newest files always stay."""
    days: float = Field(default=0.0, ge=0)
    """Files younger than so many days stay."""
    age: Seconds = 0.0
    """As `days`, for shorter times; the longer of the two holds."""


class DirectorySettings(Strict):
    """A directory in which `file.delete` may remove old files."""

    path: str
    match: list[str] = Field(min_length=1)
    """Globs on the file's name; what matches none stays."""
    keep: KeepSettings = KeepSettings()


class CallSettings(Strict):
    """An HTTP request that the admin declares, for `http.call`."""

    url: str
    target: list[str] = Field(min_length=1)
    method: Literal["GET", "POST", "PUT", "DELETE"] = "POST"
    headers: dict[str, str | Secret] = Field(default_factory=dict)
    body: str = ""
    expect: list[int] = Field(default_factory=lambda: [200, 201, 202, 204])
    timeout: Seconds = 10.0
    describe: str = ""


class ConfigSettings(Strict):
    """The whole file. `channels` and `perceivers` are checked by their kinds."""

    version: Literal[1] = Field(alias="schema")
    mode: ModeWord = "observe"
    packs: list[str] = Field(default_factory=lambda: ["host", "service"])
    daemon: DaemonSettings = DaemonSettings()
    channels: dict[str, dict[str, Any]] = Field(default_factory=dict)
    routes: RoutesSettings = RoutesSettings()
    people: dict[str, PersonSettings] = Field(default_factory=dict)
    oncall: list[OnCallStep] = Field(default_factory=list)
    hold: HoldSettings = HoldSettings()
    services: dict[str, ServiceSettings] = Field(default_factory=dict)
    perceivers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    commands: dict[str, CommandSettings] = Field(default_factory=dict)
    directories: dict[str, DirectorySettings] = Field(default_factory=dict)
    calls: dict[str, CallSettings] = Field(default_factory=dict)
