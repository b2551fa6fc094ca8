"""A run says which suites it left out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = """
from pathlib import Path

from fakes.left_out import LeftOut


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: slow")
    config.pluginmanager.register(LeftOut(Path(__file__).parent))
"""
FILES = {
    "conftest.py": CONFTEST,
    "ebb/test_one.py": "def test_a(): pass\ndef test_b(): pass\n",
    "ebb/test_two.py": "def test_c(): pass\n",
    "flood/deep/test_three.py": "import pytest\n@pytest.mark.slow\ndef test_d(): pass\n",
    "test_alone.py": "def test_e(): pass\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\ntestpaths = tests\naddopts = --import-mode=importlib\npythonpath = {Path(__file__).parent}\n"
    )
    return tmp_path


def _left_out(project: Path, *words: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words],
        cwd=project,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    [line] = [line for line in run.stdout.splitlines() if line.startswith("left out: ")]
    return line.removeprefix("left out: ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "none"),
        (["tests"], "none"),
        (["tests/ebb"], "flood (not collected), test_alone.py (not collected)"),
        (["tests/ebb", "tests/flood"], "test_alone.py (not collected)"),
        (["--ignore=tests/flood"], "flood (not collected)"),
        (["--ignore=tests/ebb/test_two.py"], "ebb (1 of 2 files not collected)"),
        (["-m", "not slow"], "flood (1 deselected)"),
        (["-k", "test_a"], "ebb (2 deselected), flood (1 deselected)"),
        (["--deselect", "tests/ebb/test_one.py::test_a"], "ebb (1 deselected)"),
        (
            ["tests/ebb/test_one.py::test_a", "tests/ebb/test_two.py", "tests/flood", "tests/test_alone.py"],
            "ebb (single tests were named)",
        ),
    ],
)
def test_what_was_not_run_is_named(project: Path, words: list[str], says: str) -> None:
    assert _left_out(project, *words) == says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import pytest\npytest.skip('no', allow_module_level=True)\n", "flood (1 skipped)"),
        ("import pytest\n@pytest.mark.skip\ndef test_d(): pass\ndef test_f(): pass\n", "flood (1 skipped)"),
        ("import pytest\ndef test_d(): pytest.skip('no')\n", "flood (1 skipped)"),
        ("import pytest\n@pytest.mark.xfail\ndef test_d(): assert False\n", "none"),
    ],
    ids=["module", "mark", "within", "xfail is no skip"],
)
def test_what_was_skipped_is_named(project: Path, text: str, says: str) -> None:
    (project / "tests/flood/deep/test_three.py").write_text(text)
    assert _left_out(project) == says


def test_what_was_not_run_after_a_failure_is_named(project: Path) -> None:
    (project / "tests/ebb/test_one.py").write_text("def test_a(): assert False\n")
    assert _left_out(project, "-x") == "ebb (1 not run), flood (1 not run), test_alone.py (1 not run)"


def test_a_file_that_cannot_be_imported_is_not_collected(project: Path) -> None:
    (project / "tests/flood/deep/test_three.py").write_text("import no_such_module\n")
    assert "flood (not collected)" in _left_out(project)
