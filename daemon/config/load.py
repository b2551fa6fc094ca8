"""From files to a checked Config: every fault of the configuration is found here, before anything is started."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from daemon.config import checks, places, toml
from daemon.config.merge import merge
from daemon.config.places import Places
from daemon.config.plans import Kinds, PerceiverPlan, channel, perceiver
from daemon.config.settings import ConfigSettings, PackSettings
from daemon.config.strict import validate
from daemon.config.toml import Doc
from daemon.errors import ConfigError, Problem
from daemon.model.domain import Mode

if TYPE_CHECKING:
    from daemon.escalate.base import ChannelKind

__all__ = ["Config", "Kinds", "PerceiverPlan", "load", "sources"]

T = TypeVar("T")
PLANNED = ("alive", "privileged")
"""Areas that are foreseen and not built: named as such, so that nobody looks for a misspelling."""


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration in which every name it uses exists."""

    path: Path
    settings: ConfigSettings
    mode: Mode
    perceivers: list[PerceiverPlan]
    channels: Mapping[str, tuple[ChannelKind, BaseModel]]
    places: Places
    files: Mapping[Path, str]
    """Every file that was read, packs included → the SHA-256 of its bytes."""
    doc: Doc

    def where(self, *keypath: str | int) -> str:
        """`FILE:LINE` of a key of the operator's files."""
        return self.doc.where(*keypath)

    def changed(self) -> list[Path]:
        """The files that are not on disk as they were read: edited, gone, or new in conf.d."""
        try:
            now = [path for path in sources(self.path) if path not in self.files]
        except ConfigError:
            now = [self.path.parent / "conf.d"]
        return sorted([path for path, digest in self.files.items() if _digest(path) != digest] + now)


def load(
    path: Path, kinds: Kinds, environ: Mapping[str, str] | None = None, vendor: Path | None = None
) -> Config:
    """Read `path`, `conf.d/*.toml` beside it, and the packs that they name. Raises ConfigError with everything that is wrong."""
    problems = _Problems()
    docs = [doc for source in sources(path) if (doc := problems.catch(toml.load, source))]
    problems.stop()
    doc = merge(docs)
    settings = _settings(doc, problems)
    packs = _packs(doc, vendor or places.vendor(), problems)
    owners = _owners(doc, packs, problems).items()
    perceivers = [plan for name, owner in owners if (plan := problems.catch(perceiver, name, owner, kinds))]
    channels = {
        name: made for name in _tables(doc, "channels") if (made := problems.catch(channel, name, doc, kinds))
    }
    if settings is not None:
        problems.found += _unsound(doc, settings, perceivers, kinds)
    problems.stop()
    assert settings is not None
    return Config(
        path=path,
        settings=settings,
        mode=Mode.parse(settings.mode),
        perceivers=perceivers,
        channels=channels,
        places=places.places(path, settings.daemon, environ),
        files={found.path: found.digest for found in (*docs, *packs)},
        doc=doc,
    )


class _Problems:
    """Gathers what is wrong, so that one run tells all of it."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def catch(self, step: Callable[..., T], *args: Any) -> T | None:
        try:
            return step(*args)
        except ConfigError as exc:
            self.found += exc.problems
            return None

    def stop(self) -> None:
        if self.found:
            raise ConfigError(sorted(self.found, key=_place))


def _place(problem: Problem) -> tuple[str, int]:
    file, _, line = problem.where.rpartition(":")
    return (file, int(line)) if line.isdecimal() else (problem.where, 0)


def sources(path: Path) -> list[Path]:
    """The file and those of `conf.d` beside it, in the order of their names. Raises ConfigError when conf.d cannot be listed."""
    directory = path.parent / "conf.d"
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return [path]
    except OSError as exc:
        hint = "make it readable for the user that runs midwatch"
        raise ConfigError([Problem(str(directory), f"cannot be listed: {exc.strerror}", hint)]) from exc
    # Names with a dot in front are what editors leave lying about.
    parts = sorted(name for name in names if name.endswith(".toml") and not name.startswith("."))
    return [path, *(directory / name for name in parts)]


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(toml.read(path)).hexdigest()
    except OSError:
        return ""


def _settings(doc: Doc, problems: _Problems) -> ConfigSettings | None:
    there = ", ".join(sorted(field.alias or name for name, field in ConfigSettings.model_fields.items()))
    for area in PLANNED:
        if area in doc.data:
            what = f"`[{area}]` is not built yet"
            problems.found.append(Problem(doc.where(area), what, f"take it out; there are {there}"))
    data = {area: value for area, value in doc.data.items() if area not in PLANNED}
    return problems.catch(validate, ConfigSettings, data, doc)


def _unsound(
    doc: Doc, settings: ConfigSettings, plans: Sequence[PerceiverPlan], kinds: Kinds
) -> Iterator[Problem]:
    for fault in checks.check(settings, kinds.actions):
        yield Problem(doc.where(*fault.at), fault.what, fault.hint)
    for plan in plans:
        if outside := checks.unknown_service(plan.resource, settings.services):
            yield Problem(plan.where, *outside)


def _tables(doc: Doc, area: str) -> dict[str, dict[str, Any]]:
    """The tables of an area, as far as they are ones; what is not has been told of by then."""
    tables = doc.data.get(area)
    return {k: v for k, v in tables.items() if isinstance(v, dict)} if isinstance(tables, dict) else {}


def _packs(doc: Doc, vendor: Path, problems: _Problems) -> list[Doc]:
    """The packs' perceivers; a pack may well have none."""
    there = sorted(path.name for path in (vendor / "packs").glob("*/"))
    default = ConfigSettings.model_fields["packs"].get_default(call_default_factory=True)
    names = doc.data.get("packs", default)
    found: dict[str, Doc] = {}
    # What is no list of texts has been told of by then.
    for index, name in enumerate(names if isinstance(names, list) else []):
        if isinstance(name, str) and name not in there:
            hint = f"there are {', '.join(there) or 'none'}"
            problems.found.append(Problem(doc.where("packs", index), f"there is no pack `{name}`", hint))
        elif isinstance(name, str) and name not in found:
            path = vendor / "packs" / name / "perceivers.toml"
            if path.exists() and (pack := problems.catch(_pack, path)):
                found[name] = pack
    return list(found.values())


def _pack(path: Path) -> Doc:
    doc = toml.load(path)
    validate(PackSettings, doc.data, doc)
    return doc


def _owners(doc: Doc, packs: Sequence[Doc], problems: _Problems) -> dict[str, Doc]:
    """Each perceiver's name → the file that says what it is: the operator's, which replaces a pack's whole, or a pack's."""
    own = dict.fromkeys(_tables(doc, "perceivers"), doc)
    owners: dict[str, Doc] = {}
    for pack in packs:
        for name in pack.data.get("perceivers", {}):
            if name in owners and name not in own:
                hint = f"first at {owners[name].where('perceivers', name)}; write a [perceivers.{name}] of your own"
                what = f"two packs have a perceiver `{name}`"
                problems.found.append(Problem(pack.where("perceivers", name), what, hint))
            owners[name] = pack
    return owners | own
