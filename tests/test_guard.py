"""What is committed is guarded by checks that can say no: `.ci/guard.py` and `.ci/units.py`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree as small as the guard needs."""
    for name in (".ci", "tests/deep", "policies", "systemd"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(ROOT / ".ci/guard.py", tmp_path / ".ci/guard.py")
    (tmp_path / "constraints.txt").write_text("click==8.3.0 \\\n    --hash=sha256:00\n")
    return tmp_path


def _run(script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)


def _said(tree: Path) -> str:
    done = _run(tree / ".ci/guard.py")
    assert (done.returncode == 0) == (done.stdout == "guards: all well\n")
    return done.stdout


def test_what_is_committed_here_is_well() -> None:
    assert _said(ROOT) == "guards: all well\n"


def test_a_clean_tree_is_well(tree: Path) -> None:
    assert _said(tree) == "guards: all well\n"


@pytest.mark.parametrize("option", ["--index-url", "--extra-index-url", "--index"])
def test_an_index_option_is_refused(tree: Path, option: str) -> None:
    (tree / "constraints.txt").write_text(f"{option} somewhere\nclick==8.3.0\n")
    assert "constraints.txt names an index address" in _said(tree)


def test_an_address_in_a_comment_is_refused(tree: Path) -> None:
    (tree / "constraints.txt").write_text("# from " + "https" + "://packages.example/simple\nclick==8.3.0\n")
    assert "constraints.txt names an index address" in _said(tree)


@pytest.mark.parametrize("name", ["uv.lock", "poetry.lock", "pylock.toml", "package-lock.json"])
def test_a_lock_file_is_refused(tree: Path, name: str) -> None:
    (tree / name).touch()
    assert f"{name} must not be kept" in _said(tree)


def test_the_other_owner_of_our_package_name_is_refused(tree: Path) -> None:
    (tree / "constraints.txt").write_text("click==8.3.0\npython-daemon==3.1.2\n")
    assert "python-daemon" in _said(tree)


@pytest.mark.parametrize("place", ["tests", "tests/deep", "policies", "systemd"])
def test_what_would_shadow_a_package_is_refused(tree: Path, place: str) -> None:
    (tree / place / "__init__.py").touch()
    assert "would shadow a package" in _said(tree)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_the_shipped_unit_is_sound_and_hardly_exposed() -> None:
    done = _run(ROOT / ".ci/units.py")
    assert (done.returncode, done.stdout) == (0, "unit files: all well\n"), done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_a_unit_without_protection_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    (tmp_path / "systemd").mkdir()
    shutil.copy(ROOT / ".ci/units.py", tmp_path / ".ci/units.py")
    (tmp_path / "systemd/bare.service").write_text("[Service]\nExecStart=/bin/true\n")
    done = _run(tmp_path / ".ci/units.py")
    assert done.returncode == 1
    assert "bare.service: too exposed" in done.stdout
