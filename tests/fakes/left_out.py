"""Says at the end of a run which suites it left out, wholly or in part: a run of some must not look like a run of all."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest


class LeftOut:
    """A pytest plug-in. A suite is a folder below `root`, or a file of tests that lies there by itself."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: set[Path] = set()
        """Those of which something was collected."""
        self._items: dict[str, str] = {}
        """What is to be run: node id → suite."""
        self._deselected: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._begun: set[str] = set()
        self._named: set[str] = set()
        """Suites of which single tests were asked for."""

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            path = self._root.parent / report.nodeid.partition("::")[0]
            self._files.add(path)
            self._skipped[self._suite(path)] += 1

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        for item in items:
            self._files.add(item.path)
            self._deselected[self._suite(item.path)] += 1

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._files |= {item.path for item in session.items}
        self._items = {item.nodeid: self._suite(item.path) for item in session.items}
        for word in session.config.args:
            path, single, _ = word.partition("::")
            if single:
                self._named.add(self._suite((session.config.invocation_params.dir / path).resolve()))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._begun.add(report.nodeid)
        if report.skipped and not hasattr(report, "wasxfail") and report.nodeid in self._items:
            self._skipped[self._items[report.nodeid]] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not terminalreporter.config.option.collectonly:
            terminalreporter.write_line(f"left out: {', '.join(self._lines()) or 'none'}")

    def _lines(self) -> list[str]:
        files: defaultdict[str, set[Path]] = defaultdict(set)
        for path in self._root.rglob("test_*.py"):
            files[self._suite(path)].add(path)
        return [
            f"{suite} ({why})"
            for suite in sorted(files)
            if (why := "; ".join(self._why(suite, files[suite])))
        ]

    def _why(self, suite: str, there: set[Path]) -> Iterable[str]:
        missing = len(there - self._files)
        if missing == len(there):
            yield "not collected"
        elif missing:
            yield f"{missing} of {len(there)} files not collected"
        if suite in self._named:
            yield "single tests were named"
        if count := self._deselected[suite]:
            yield f"{count} deselected"
        if count := self._skipped[suite]:
            yield f"{count} skipped"
        if count := sum(found == suite for name, found in self._items.items() if name not in self._begun):
            yield f"{count} not run"

    def _suite(self, path: Path) -> str:
        try:
            return path.relative_to(self._root).parts[0]
        except ValueError:
            return path.name
