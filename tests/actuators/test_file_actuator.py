"""Restoring and deleting: exactly what was judged, nothing that only looks like it."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes.actuator_tools import aged, tools

from actuators import safefs
from actuators.base import Action, Check, Outcome, Result
from actuators.file import MOST_BACKUPS, FileActuator, build


class Kept:
    """A service's file with a last good copy."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "etc" / "app.conf"
        self.path.parent.mkdir()
        self.path.write_bytes(b"port = 1\n")
        (home / "copies").mkdir()
        self.good = safefs.keep(str(self.path), str(home / "copies"))
        self.path.write_bytes(b"prot = 1\n")
        self.path.chmod(0o640)
        self.actuator = build(tools(home, files=(self.path,), last_good={str(self.path): self.good}))

    def act(self, **params: Any) -> Action:
        return Action("file.restore", f"path:{self.path}", params, "k1")

    async def applied(self) -> tuple[Action, Check, Outcome]:
        return await applied(self.actuator, self.act())


async def applied(actuator: FileActuator, action: Action) -> tuple[Action, Check, Outcome]:
    resolved = await actuator.resolve(action)
    check = await actuator.check(resolved)
    return resolved, check, await actuator.apply(resolved, check)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


async def test_last_good_becomes_a_hash(kept: Kept) -> None:
    resolved = await kept.actuator.resolve(kept.act())
    assert resolved.params == {"copy": kept.good}
    assert await kept.actuator.resolve(kept.act(copy="last-good")) == resolved
    assert await kept.actuator.resolve(resolved) == resolved


@pytest.mark.parametrize("copy", ["latest", "../x", "A" * 64, "a" * 63, 7, None, ["last-good"]])
async def test_other_copies_are_refused(kept: Kept, copy: object) -> None:
    with pytest.raises(ValueError, match='copy must be "last-good" or a SHA-256'):
        await kept.actuator.resolve(kept.act(copy=copy))


async def test_only_files_of_services_can_be_restored(kept: Kept) -> None:
    for target in (f"path:{kept.path}.bak", "path:/etc/passwd", f"path:{kept.path.parent}"):
        with pytest.raises(ValueError, match=f"there are copies of: path:{kept.path}"):
            await kept.actuator.resolve(Action("file.restore", target))
    for target in ("service:api", "path:relative"):
        with pytest.raises(ValueError, match="path:/ABSOLUTE"):
            await kept.actuator.resolve(Action("file.restore", target))
    with pytest.raises(ValueError, match="accepted: copy"):
        await kept.actuator.resolve(kept.act(mode=0o777))


async def test_without_a_copy_there_is_no_restoring(tmp_path: Path) -> None:
    actuator = build(tools(tmp_path, files=(tmp_path / "x",)))
    with pytest.raises(ValueError, match="no last good copy"):
        await actuator.resolve(Action("file.restore", f"path:{tmp_path}/x"))


async def test_restore_puts_content_back_and_nothing_else_changes(kept: Kept) -> None:
    resolved, check, outcome = await kept.applied()
    assert check.reason == f"would put the copy {kept.good[:12]} in the place of {kept.path}"
    assert check.size == {"files": 1, "bytes": 9}
    assert check.state["mode"] == 0o640
    assert outcome.result is Result.SUCCEEDED
    assert kept.path.read_bytes() == b"port = 1\n"
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o640
    assert await kept.actuator.verify(resolved, check, outcome)
    assert await kept.actuator.probe(resolved, check) == "happened"
    assert os.listdir(kept.path.parent) == ["app.conf"]


async def test_what_is_good_already_is_left(kept: Kept) -> None:
    resolved, _, _ = await kept.applied()
    check = await kept.actuator.check(resolved)
    assert (check.ok, check.reason) == (False, f"{kept.path} is already the last good copy")


async def test_undo_brings_back_what_was_there(kept: Kept) -> None:
    resolved, check, _ = await kept.applied()
    # After a crash the outcome is a probe's, without any detail.
    undone = await kept.actuator.undo(resolved, check, Outcome(Result.SUCCEEDED))
    assert undone.result is Result.UNDONE
    assert kept.path.read_bytes() == b"prot = 1\n"
    assert (await kept.actuator.check(resolved)).state == check.state
    assert await kept.actuator.probe(resolved, check) == "did-not"
    assert (await kept.actuator.undo(resolved, check, Outcome(Result.SUCCEEDED))).result is Result.UNDONE


async def test_undo_leaves_a_persons_edit_alone(kept: Kept) -> None:
    resolved, check, outcome = await kept.applied()
    kept.path.write_bytes(b"port = 2\n")
    undone = await kept.actuator.undo(resolved, check, outcome)
    assert undone.result is Result.FAILED
    assert "left alone" in undone.reason
    assert kept.path.read_bytes() == b"port = 2\n"
    assert await kept.actuator.probe(resolved, check) == "cannot-tell"


async def test_a_change_after_the_check_is_refused(kept: Kept) -> None:
    resolved = await kept.actuator.resolve(kept.act())
    check = await kept.actuator.check(resolved)
    kept.path.write_bytes(b"port = 2\n")
    outcome = await kept.actuator.apply(resolved, check)
    assert (outcome.result, outcome.reason) == (Result.REFUSED, f"{kept.path} changed since it was judged")
    assert kept.path.read_bytes() == b"port = 2\n"


async def test_a_damaged_or_lost_copy_fails_the_check(kept: Kept) -> None:
    resolved = await kept.actuator.resolve(kept.act())
    copy = kept.home / "copies" / kept.good
    copy.write_bytes(b"evil")
    assert "damaged" in (await kept.actuator.check(resolved)).reason
    copy.unlink()
    assert "No such file" in (await kept.actuator.check(resolved)).reason


@pytest.mark.parametrize("kind", ["gone", "link", "twin", "fifo", "directory"])
async def test_a_file_that_is_another_thing_now_is_left_alone(kept: Kept, kind: str) -> None:
    resolved = await kept.actuator.resolve(kept.act())
    before = await kept.actuator.check(resolved)
    other = kept.home / "other"
    other.write_bytes(kept.path.read_bytes())
    kept.path.unlink()
    if kind == "link":
        kept.path.symlink_to(other)
    elif kind == "twin":
        kept.path.hardlink_to(other)
    elif kind == "fifo":
        os.mkfifo(kept.path)
    elif kind == "directory":
        kept.path.mkdir()
    assert not (await kept.actuator.check(resolved)).ok
    outcome = await kept.actuator.apply(resolved, before)
    assert outcome.result is Result.FAILED
    assert str(kept.path) in outcome.reason
    assert not await kept.actuator.verify(resolved, before, outcome)
    assert (await kept.actuator.undo(resolved, before, outcome)).result is Result.FAILED
    assert await kept.actuator.probe(resolved, before) == "cannot-tell"
    assert other.read_bytes() == b"prot = 1\n"


async def test_backups_are_bounded(kept: Kept) -> None:
    scratch = kept.home / "scratch"
    for number in range(MOST_BACKUPS + 5):
        aged(scratch / f"{number:064x}", days=100 + number)
    _, check, _ = await kept.applied()
    left = os.listdir(scratch)
    assert len(left) == MOST_BACKUPS
    assert check.state["sha256"] in left


RELEASES: dict[str, Any] = {"match": ["api-*.tar"], "keep": {"newest": 2, "days": 7.0}}


class Folder:
    """A directory from which old files may be removed."""

    def __init__(self, home: Path, **rule: Any) -> None:
        self.home = home
        self.path = home / "releases"
        self.path.mkdir()
        declared: Mapping[str, Any] = {"path": str(self.path), **(rule or RELEASES)}
        self.actuator = build(tools(home, directories={"old-releases": declared}))

    def act(self, **params: Any) -> Action:
        return Action("file.delete", f"path:{self.path}", params, "k1")

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


async def test_what_is_judged_stands_in_the_parameters(folder: Folder) -> None:
    resolved = await folder.actuator.resolve(folder.act())
    assert resolved.params == {"match": ["api-*.tar"], "keep": {"newest": 2, "days": 7.0, "age": 0.0}}
    assert await folder.actuator.resolve(resolved) == resolved


async def test_parameters_cannot_widen_it(folder: Folder) -> None:
    with pytest.raises(ValueError, match="match is what the configuration says"):
        await folder.actuator.resolve(folder.act(match=["*"]))
    with pytest.raises(ValueError, match="accepted: match, keep"):
        await folder.actuator.resolve(folder.act(force=True))


@pytest.mark.parametrize("below", ["", "/..", "-old", "/sub", "/"])
async def test_only_that_directory_is_a_target(folder: Folder, below: str) -> None:
    target = f"path:{folder.path.parent if below == '' else str(folder.path) + below}"
    with pytest.raises(
        ValueError, match=f"only from the directories of the configuration: path:{folder.path}"
    ):
        await folder.actuator.resolve(Action("file.delete", target))


def test_a_directory_stands_only_once(tmp_path: Path) -> None:
    same = {"path": "/srv", "match": ["*"]}
    with pytest.raises(ValueError, match=r"directories\.b: there is another entry for /srv"):
        build(tools(tmp_path, directories={"a": same, "b": same}))


async def test_old_files_go_and_the_rest_stays(folder: Folder) -> None:
    for days in range(5, 15):
        aged(folder.path / f"api-{days:02}.tar", days, b"x" * days)
    precious = ["api-01.tar.keep", "xapi-99.tar", "API-99.tar", "notes", ".api-99.tar"]
    for name in precious:
        aged(folder.path / name, 400)
    resolved, check, outcome = await applied(folder.actuator, folder.act())
    assert check.size == {"files": 8, "bytes": sum(range(7, 15))}
    assert check.reason == "would remove 8 files, 84 bytes"
    assert outcome.result is Result.SUCCEEDED
    assert outcome.detail["files"] == 8
    assert outcome.detail["names"][0] == "api-14.tar"
    assert folder.names() == sorted([*precious, "api-05.tar", "api-06.tar"])
    assert await folder.actuator.verify(resolved, check, outcome)
    assert await folder.actuator.probe(resolved, check) == "happened"


async def test_the_newest_stay_however_old_they_are(folder: Folder) -> None:
    for days in (100, 200, 300):
        aged(folder.path / f"api-{days}.tar", days)
    await applied(folder.actuator, folder.act())
    assert folder.names() == ["api-100.tar", "api-200.tar"]


async def test_age_is_for_shorter_times(tmp_path: Path) -> None:
    folder = Folder(tmp_path, match=["*"], keep={"newest": 0, "days": 0.0, "age": 3600.0})
    aged(folder.path / "young", 1 / 48)
    aged(folder.path / "old", 1 / 12)
    aged(folder.path / "of-tomorrow", -1)
    await applied(folder.actuator, folder.act())
    assert folder.names() == ["of-tomorrow", "young"]


async def test_a_star_leaves_hidden_files_alone(tmp_path: Path) -> None:
    folder = Folder(tmp_path, match=["*"])
    aged(folder.path / ".hidden", 10)
    aged(folder.path / "plain", 10)
    await applied(folder.actuator, folder.act())
    assert folder.names() == [".hidden"]


async def test_what_is_no_plain_file_stays(tmp_path: Path) -> None:
    folder = Folder(tmp_path, match=["*"])
    outside = aged(tmp_path / "precious", 400)
    (folder.path / "link").symlink_to(outside)
    (folder.path / "twin").hardlink_to(outside)
    os.mkfifo(folder.path / "fifo")
    (folder.path / "sub").mkdir()
    aged(folder.path / "sub" / "deep", 400)
    aged(folder.path / "plain", 400)
    await applied(folder.actuator, folder.act())
    assert folder.names() == ["fifo", "link", "sub", "twin"]
    assert (folder.path / "sub" / "deep").exists()


async def test_nothing_to_do_fails_the_check(folder: Folder) -> None:
    check = await folder.actuator.check(await folder.actuator.resolve(folder.act()))
    assert (check.ok, check.reason) == (False, f"there is nothing old enough to remove in {folder.path}")


@pytest.mark.parametrize("change", ["written", "new", "gone"])
async def test_a_change_since_the_check_is_refused(folder: Folder, change: str) -> None:
    for days in range(10, 15):
        aged(folder.path / f"api-{days}.tar", days)
    resolved = await folder.actuator.resolve(folder.act())
    check = await folder.actuator.check(resolved)
    if change == "written":
        aged(folder.path / "api-14.tar", 14, b"longer")
    elif change == "new":
        aged(folder.path / "api-15.tar", 15)
    else:
        (folder.path / "api-14.tar").unlink()
    before = folder.names()
    assert (await folder.actuator.check(resolved)).state != check.state
    outcome = await folder.actuator.apply(resolved, check)
    assert (outcome.result, outcome.reason) == (
        Result.REFUSED,
        "the files to remove changed since they were judged",
    )
    assert folder.names() == before
    assert await folder.actuator.probe(resolved, check) == "cannot-tell"


async def test_before_the_removal_a_probe_says_so(folder: Folder) -> None:
    for days in range(10, 15):
        aged(folder.path / f"api-{days}.tar", days)
    resolved = await folder.actuator.resolve(folder.act())
    check = await folder.actuator.check(resolved)
    assert await folder.actuator.probe(resolved, check) == "did-not"
    assert check.state.keys() == {"files", "bytes", "digest"}


async def test_a_directory_that_became_a_link_is_left_alone(folder: Folder) -> None:
    for days in range(10, 15):
        aged(folder.path / f"api-{days}.tar", days)
    resolved = await folder.actuator.resolve(folder.act())
    check = await folder.actuator.check(resolved)
    folder.path.rename(folder.home / "moved")
    folder.path.symlink_to("moved")
    assert not (await folder.actuator.check(resolved)).ok
    assert (await folder.actuator.apply(resolved, check)).result is Result.FAILED
    assert len(os.listdir(folder.home / "moved")) == 5


async def test_odd_names_can_be_told(tmp_path: Path) -> None:
    folder = Folder(tmp_path, match=["*"])
    aged(Path(os.fsdecode(os.fsencode(folder.path) + b"/\xff\n\x1b")), 10)
    _, _, outcome = await applied(folder.actuator, folder.act())
    assert outcome.detail["names"] == ["\\udcff\n\x1b"]


async def test_a_removed_entry_of_the_configuration_fails_the_check(folder: Folder) -> None:
    resolved = await folder.actuator.resolve(folder.act())
    check = await build(tools(folder.home)).check(resolved)
    assert not check.ok
    assert "only from the directories" in check.reason


async def test_there_is_no_way_back_from_delete(folder: Folder) -> None:
    aged(folder.path / "api-1.tar", 10)
    resolved = await folder.actuator.resolve(folder.act())
    undone = await folder.actuator.undo(resolved, Check(True), Outcome(Result.SUCCEEDED))
    assert (undone.result, undone.reason) == (Result.REFUSED, "removed files cannot be had back")
