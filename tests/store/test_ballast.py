"""Room kept aside."""

from __future__ import annotations

from pathlib import Path

from daemon.store.ballast import Ballast


def test_it_is_made_of_real_blocks_released_once_and_made_again(tmp_path: Path) -> None:
    path = tmp_path / "midwatch.ballast"
    ballast = Ballast(path, 100_000)
    ballast.fill()
    assert path.stat().st_size == 100_000
    assert path.stat().st_blocks * 512 >= 100_000
    assert ballast.release()
    assert not path.exists()
    assert not ballast.release()
    ballast.fill()
    assert path.exists()


def test_a_half_made_one_is_made_whole(tmp_path: Path) -> None:
    path = tmp_path / "midwatch.ballast"
    path.write_bytes(b"x")
    Ballast(path, 100_000).fill()
    assert path.stat().st_size == 100_000


def test_no_size_means_no_file(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "midwatch.ballast", 0)
    ballast.fill()
    assert not ballast.release()
    assert list(tmp_path.iterdir()) == []


def test_it_never_takes_the_last_room(tmp_path: Path) -> None:
    path = tmp_path / "midwatch.ballast"
    Ballast(path, 2**60).fill()
    assert not path.exists()
