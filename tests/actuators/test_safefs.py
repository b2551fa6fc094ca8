"""The file layer against files that are not what their name says, at rest and in a race."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actuators import safefs

OPENERS = [safefs.open_by_kernel, safefs.open_by_walking, safefs.open_strictly]
HIDDEN = b"nobody may see this"


@pytest.fixture(params=OPENERS, ids=lambda opener: opener.__name__)
def opener(request: pytest.FixtureRequest) -> safefs.Opener:
    found: safefs.Opener = request.param
    return found


@contextmanager
def meanwhile(disturb: Callable[[], None]) -> Iterator[None]:
    """Do something over and over in another thread, as often as can be."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            disturb()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_file_is_read_with_whose_it_is(tmp_path: Path, opener: safefs.Opener) -> None:
    path = tmp_path / "app.conf"
    path.write_bytes(b"port = 1\n")
    path.chmod(0o640)
    loaded = safefs.load(str(path), opener=opener)
    assert (loaded.data, loaded.mode) == (b"port = 1\n", 0o640)
    assert (loaded.uid, loaded.gid) == (os.geteuid(), os.stat(path).st_gid)
    assert loaded.sha256 == hashlib.sha256(b"port = 1\n").hexdigest()


def lay_traps(home: Path) -> None:
    (home / "secret").write_bytes(HIDDEN)
    (home / "outside").mkdir()
    (home / "outside" / "secret").write_bytes(HIDDEN)
    logs = home / "logs"
    logs.mkdir()
    (logs / "link").symlink_to("../secret")
    (logs / "absolute").symlink_to(home / "secret")
    (logs / "chain").symlink_to("link")
    (logs / "loop").symlink_to("loop")
    (logs / "folder").symlink_to("../outside")
    (logs / "proc").symlink_to("/proc/self/environ")
    (logs / "twin").hardlink_to(home / "outside" / "secret")
    os.mkfifo(logs / "fifo")


TRAPS = [
    "link",
    "absolute",
    "chain",
    "loop",
    "folder/secret",
    "folder",
    "proc",
    "twin",
    "fifo",
    "gone",
    "link/x",
]


@pytest.mark.parametrize("name", TRAPS)
def test_what_is_no_plain_file_is_refused(tmp_path: Path, opener: safefs.Opener, name: str) -> None:
    lay_traps(tmp_path)
    before = descriptors()
    with pytest.raises(OSError, match=r".") as refused:
        safefs.load(f"{tmp_path}/logs/{name}", opener=opener)
    assert refused.value.filename == f"{tmp_path}/logs/{name}"
    assert descriptors() == before


@pytest.mark.parametrize(
    "path", ["etc/passwd", "/etc/../etc/passwd", "/etc//passwd", "/etc/./passwd", "/etc/passwd/", "", "/e\0"]
)
def test_a_path_that_is_not_canonical_is_refused(opener: safefs.Opener, path: str) -> None:
    with pytest.raises(OSError, match="absolute") as refused:
        safefs.load(path, opener=opener)
    assert refused.value.errno == errno.EINVAL


def test_directories_and_magic_links_are_no_files(tmp_path: Path, opener: safefs.Opener) -> None:
    for path in (str(tmp_path), "/", "/dev/null", f"/proc/{os.getpid()}/exe", f"/proc/{os.getpid()}/cwd/x"):
        with pytest.raises(OSError, match=r"."):
            safefs.load(path, opener=opener)


def test_a_swapped_file_never_leaks(tmp_path: Path, opener: safefs.Opener) -> None:
    (tmp_path / "secret").write_bytes(HIDDEN)
    race, plain, link = tmp_path / "race", tmp_path / "plain", tmp_path / "link"

    def swap() -> None:
        plain.write_bytes(b"open")
        plain.replace(race)
        link.symlink_to("secret")
        link.replace(race)

    assert all(data in (b"open", b"", None) for data in raced(str(race), opener, swap))


def test_a_swapped_folder_never_leaks(tmp_path: Path, opener: safefs.Opener) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "app.log").write_bytes(HIDDEN)
    folder, aside, link = tmp_path / "folder", tmp_path / "aside", tmp_path / "link"
    folder.mkdir()
    (folder / "app.log").write_bytes(b"open")

    def swap() -> None:
        folder.rename(aside)
        folder.symlink_to("outside")
        folder.rename(link)
        link.unlink()
        aside.rename(folder)

    assert all(data in (b"open", None) for data in raced(str(folder / "app.log"), opener, swap))


def raced(path: str, opener: safefs.Opener, swap: Callable[[], None]) -> list[bytes | None]:
    found: list[bytes | None] = []
    with meanwhile(swap):
        while len(found) < 2000:
            try:
                found.append(safefs.load(path, opener=opener).data)
            except OSError:
                found.append(None)
    return found


def test_a_growing_file_is_read_to_the_limit_only(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"x" * 60_000)

    def read() -> int:
        try:
            return len(safefs.load(str(path), 100_000).data)
        except OSError as exc:
            return -(exc.errno or 0)

    def grow() -> None:
        with path.open("ab") as out:
            out.write(b"x" * 1000)

    with meanwhile(grow):
        sizes = [read()]
        while sizes[-1] >= 0:
            sizes.append(read())
    assert max(sizes) <= 100_000
    assert sizes[-1] == -errno.EFBIG


def test_the_limit_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert len(safefs.load(str(path), 100).data) == 100
    with pytest.raises(OSError, match="larger than 99 bytes"):
        safefs.load(str(path), 99)


def test_a_file_that_claims_to_be_empty_is_bounded_too() -> None:
    assert b"Name:" in safefs.load("/proc/self/status".replace("self", str(os.getpid()))).data
    with pytest.raises(OSError, match="larger than 10 bytes"):
        safefs.load(f"/proc/{os.getpid()}/status", 10)


def test_replace_keeps_mode_owner_and_attributes(tmp_path: Path) -> None:
    path = tmp_path / "app.conf"
    path.write_bytes(b"old")
    path.chmod(0o4750)
    owner = (12345, 23456) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *owner)
    path.chmod(0o4750)
    marked = mark(path)
    inode = path.stat().st_ino
    safefs.replace(str(path), b"new")
    now = path.stat()
    assert path.read_bytes() == b"new"
    assert now.st_ino != inode
    assert (stat.S_IMODE(now.st_mode), (now.st_uid, now.st_gid)) == (0o4750, owner)
    assert not marked or os.getxattr(path, "user.note") == b"kept"
    assert os.listdir(tmp_path) == ["app.conf"]


def mark(path: Path) -> bool:
    try:
        os.setxattr(path, "user.note", b"kept")
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", TRAPS)
def test_replace_refuses_what_is_no_plain_file(tmp_path: Path, name: str) -> None:
    lay_traps(tmp_path)
    before = sorted(os.listdir(tmp_path / "logs"))
    with pytest.raises(OSError, match=r"."):
        safefs.replace(f"{tmp_path}/logs/{name}", b"overwritten")
    assert sorted(os.listdir(tmp_path / "logs")) == before
    assert (tmp_path / "secret").read_bytes() == (tmp_path / "outside" / "secret").read_bytes() == HIDDEN


def test_a_reader_sees_the_old_or_the_new_content_never_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "app.conf"
    contents = [b"a" * 50_000, b"b" * 50_000]
    path.write_bytes(contents[0])
    turn = iter(range(10**9))
    with meanwhile(lambda: safefs.replace(str(path), contents[next(turn) % 2])):
        for _ in range(200):
            assert path.read_bytes() in contents


def test_copies_are_kept_by_hash_and_read_back(tmp_path: Path) -> None:
    source = tmp_path / "app.conf"
    source.write_bytes(b"good")
    store = tmp_path / "copies"
    store.mkdir()
    sha256 = safefs.keep(str(source), str(store))
    assert sha256 == hashlib.sha256(b"good").hexdigest() == safefs.put(str(store), b"good")
    assert os.listdir(store) == [sha256]
    assert stat.S_IMODE((store / sha256).stat().st_mode) == 0o600
    assert safefs.fetch(str(store), sha256) == b"good"


def test_a_damaged_copy_is_not_handed_out(tmp_path: Path) -> None:
    sha256 = safefs.put(str(tmp_path), b"good")
    (tmp_path / sha256).write_bytes(b"evil")
    with pytest.raises(OSError, match="damaged"):
        safefs.fetch(str(tmp_path), sha256)


def test_the_daemons_own_directory_may_be_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "state").symlink_to("real")
    sha256 = safefs.put(str(tmp_path / "state"), b"good")
    assert safefs.fetch(str(tmp_path / "state"), sha256) == b"good"


def test_a_listing_says_what_stands_there_and_is_bounded(tmp_path: Path) -> None:
    lay_traps(tmp_path)
    (tmp_path / "logs" / "app.log").write_bytes(b"12345")
    found = {entry.name: entry for entry in safefs.listing(str(tmp_path / "logs"))}
    assert [name for name, entry in found.items() if entry.plain] == ["app.log"]
    assert found["app.log"].size == 5
    with pytest.raises(OSError, match="more than 3 entries"):
        safefs.listing(str(tmp_path / "logs"), 3)
    with pytest.raises(OSError, match=r"symbolic link|Not a directory"):
        safefs.listing(str(tmp_path / "logs" / "folder"))


def test_only_what_is_still_the_same_is_removed(tmp_path: Path) -> None:
    for name in ("same", "written", "replaced", "linked", "gone", "precious"):
        (tmp_path / name).write_bytes(b"x")
    seen = [entry for entry in safefs.listing(str(tmp_path)) if entry.name != "precious"]
    (tmp_path / "written").write_bytes(b"xyz")
    (tmp_path / "other").write_bytes(b"x")
    (tmp_path / "other").replace(tmp_path / "replaced")
    (tmp_path / "linked").unlink()
    (tmp_path / "linked").symlink_to("precious")
    (tmp_path / "gone").unlink()
    removal = safefs.remove(str(tmp_path), seen)
    assert [entry.name for entry in removal.gone] == ["same"]
    assert (removal.changed, removal.error) == (4, "")
    assert sorted(os.listdir(tmp_path)) == ["linked", "precious", "replaced", "written"]


def test_removal_says_how_far_it_came(tmp_path: Path) -> None:
    entry = safefs.Entry("x" * 300, 0, 0, 0, 0, True)
    (tmp_path / "a").write_bytes(b"x")
    removal = safefs.remove(str(tmp_path), [*safefs.listing(str(tmp_path)), entry])
    assert len(removal.gone) == 1
    assert "too long" in removal.error


def test_pruning_leaves_the_newest(tmp_path: Path) -> None:
    for age in range(5):
        path = tmp_path / f"f{age}"
        path.write_bytes(b"x")
        os.utime(path, (1000 - age, 1000 - age))
    safefs.prune(str(tmp_path), 2)
    assert sorted(os.listdir(tmp_path)) == ["f0", "f1"]


def test_opening_for_reading_follows_links_but_never_blocks(tmp_path: Path) -> None:
    lay_traps(tmp_path)
    for path in (
        tmp_path / "logs" / "link",
        tmp_path / "logs" / "twin",
        tmp_path / "logs",
        Path("/proc/self/stat"),
    ):
        os.close(safefs.open_for_reading(str(path)))
    before = descriptors()
    for path in (
        tmp_path / "logs" / "fifo",
        Path("/dev/null"),
        tmp_path / "logs" / "loop",
        tmp_path / "gone",
    ):
        with pytest.raises(OSError, match=r"."):
            safefs.open_for_reading(str(path))
    assert descriptors() == before


def test_an_error_can_be_part_of_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("x")
    with pytest.raises(OSError, match="symbolic link") as refused:
        safefs.load(str(tmp_path / "link"))
    assert (
        safefs.why(refused.value)
        == f"{tmp_path}/link: a symbolic link stands in the way; write the real path"
    )
    assert safefs.why(OSError("odd")) == "odd"
