"""The values are tomllib's; the lines are checked against an oracle that knows nothing of TOML: where a unique token stands in the text."""

from __future__ import annotations

import itertools
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.ordinary import ordinary_user
from hypothesis import given
from hypothesis import strategies as st

from daemon.config.toml import LARGEST, Keypath, load, parse
from daemon.errors import ConfigError

TEXT = """\
# a comment with [brackets] and "quotes"
title = "one"
a.b.c = 1
list = [ 1,
  2, # two ] }
  [ 3 ], { x = 4, y = { z = 5 } },
]

[table]
"quoted key" = '''
[not.a.header]
'''
next = 1

[table.sub]
x = \"\"\"a\\\\\"\"\"
y = 2026-01-02 03:04:05

[[things]]
name = "first"
[things.more]
k = 1
[[things.parts]]
id = 1
[[things.parts]]
id = 2

[[things]]
name = "second"
[[things.parts]]
id = 3
[late.inner]
[late]
"""


@pytest.mark.parametrize(
    ("keypath", "line"),
    [
        (("title",), 2),
        (("a",), 3),
        (("a", "b", "c"), 3),
        (("list",), 4),
        (("list", 0), 4),
        (("list", 1), 5),
        (("list", 2, 0), 6),
        (("list", 3, "y", "z"), 6),
        (("table",), 9),
        (("table", "quoted key"), 10),
        (("table", "next"), 13),
        (("table", "sub"), 15),
        (("table", "sub", "y"), 17),
        (("things",), 19),
        (("things", 0), 19),
        (("things", 0, "more", "k"), 22),
        (("things", 0, "parts", 1, "id"), 26),
        (("things", 1), 28),
        (("things", 1, "parts", 0, "id"), 31),
        (("late",), 33),
        (("late", "inner"), 32),
    ],
)
def test_everything_has_its_line(keypath: Keypath, line: int) -> None:
    assert parse(TEXT, "x.toml").where(*keypath) == f"x.toml:{line}"


def test_what_is_not_there_is_told_by_what_is_around_it() -> None:
    doc = parse(TEXT, "x.toml")
    assert doc.where("table", "missing", "deeper") == "x.toml:9"
    assert doc.where("nowhere") == "x.toml"
    assert doc.where() == "x.toml"


def test_lines_of_a_file_from_windows() -> None:
    doc = parse('a = 1\r\nb = """\r\nx\r\n"""\r\nc = 2\r\n', "x.toml")
    assert doc.where("c") == "x.toml:5"
    assert doc.data == {"a": 1, "b": "x\n", "c": 2}


# A generator of TOML that uses every way of writing; each leaf holds a token that stands nowhere else.

SPACES = st.sampled_from(["", " ", "\t", "  "])
BREAKS = st.sampled_from(["", "\n", " # [x] = \"'''{\n", "\n\n  # ]]\n"])
KEYS = st.sampled_from(["k", "a-b", "_1", "007", '"q.r"', "'s t'", '"\\u00e9\\""', '""', "true", '"#"'])
AROUND = st.sampled_from(["", " ", "[", "]", "{", "}", "=", ",", "#", "'", "."])


class Writer:
    """Writes random TOML; every table's keys are unique, so the text is always valid."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.tokens = itertools.count(1)

    def token(self) -> str:
        return f"t{next(self.tokens):04}t"

    def scalar(self) -> str:
        token, junk = self.token(), self.draw(AROUND)
        literal = junk.replace("'", "")
        basic = junk + self.draw(st.sampled_from(["", '\\"', "\\\\", "\\n"]))
        quotes = self.draw(st.sampled_from(["", '"', '""', '\\"""']))
        return self.draw(
            st.sampled_from(
                [
                    f'"{token}{basic}"',
                    f"'{token}{literal}'",
                    f'"""{token}{basic}\n{basic}{quotes}"""',
                    f"'''{token}{literal}\n\n{junk} {literal}'''",
                ]
            )
        )

    def value(self, depth: int) -> str:
        match self.draw(st.integers(0, 3 if depth else 1)):
            case 2:
                return self.array(depth - 1)
            case 3:
                return self.inline(depth - 1)
            case _:
                return self.scalar()

    def array(self, depth: int) -> str:
        items = [
            self.draw(BREAKS) + self.value(depth) + self.draw(BREAKS)
            for _ in range(self.draw(st.integers(0, 3)))
        ]
        comma = "," if self.draw(st.booleans()) and items else ""
        return f"[{','.join(items)}{comma}{self.draw(BREAKS)}]"

    def inline(self, depth: int) -> str:
        pairs = [f"{self.draw(SPACES)}{self.pair(key, depth)}{self.draw(SPACES)}" for key in self.keys()]
        return f"{{{','.join(pairs)}}}"

    def keys(self) -> list[str]:
        return self.draw(st.lists(KEYS, max_size=3, unique=True))

    def pair(self, key: str, depth: int) -> str:
        dots = self.draw(st.sampled_from(["", ".", " . "]))
        dotted = f"{key}{dots}{self.draw(KEYS)}" if dots else key
        return f"{dotted}{self.draw(SPACES)}={self.draw(SPACES)}{self.value(depth)}"

    def body(self) -> Iterator[str]:
        for key in self.keys():
            comment = self.draw(st.sampled_from(["", "# x = ["]))
            yield self.draw(SPACES) + self.pair(key, 2) + self.draw(SPACES) + comment


def _write(draw: st.DrawFn) -> str:
    writer = Writer(draw)
    lines = [*writer.body()]
    for number in range(draw(st.integers(0, 4))):
        pad = draw(SPACES)
        name = f"h{number}{draw(st.sampled_from(['', '.', ' . ']))}"
        name = name + draw(KEYS) if "." in name else name
        arrays = draw(st.integers(0, 2))
        for _ in range(arrays or 1):
            lines.append(f"{pad}[[{pad}{name}{pad}]]{pad}# [no]" if arrays else f"{pad}[{pad}{name}{pad}]")
            lines += writer.body()
        if arrays and draw(st.booleans()):
            lines += [f"[{name}.zz]", *writer.body(), f"[[{name}.'y']]", *writer.body()]
    return "\n".join(lines) + draw(st.sampled_from(["", "\n"]))


documents = st.composite(_write)


def _leaves(value: Any, at: Keypath) -> Iterator[tuple[Keypath, Any]]:
    yield at, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*at, index))


@given(documents())
def test_every_value_of_generated_toml_has_its_line(text: str) -> None:
    doc = parse(text, "x")
    assert doc.data == tomllib.loads(text)
    values = dict(_leaves(doc.data, ()))
    assert doc.marks.keys() == values.keys() - {()}
    for keypath, value in values.items():
        if isinstance(value, str):
            line = text[: text.index(value[:6])].count("\n") + 1
            assert doc.where(*keypath) == f"x:{line}"


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused_with_words(text: str) -> None:
    try:
        doc = parse(text, "x")
    except ConfigError as exc:
        told = str(exc)
    else:
        told = "x:"
        assert doc.marks.keys() == dict(_leaves(doc.data, ())).keys() - {()}
    assert told.startswith("x:")


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nb = oops\n", 2), ("a = 1\n\na = 2\n", 3), ("[t]\nx = 1\n[t]\n", 3), ("a = 1\nb = [1,\n", 2)],
)
def test_a_fault_of_syntax_has_its_line(text: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "x.toml")
    [problem] = caught.value.problems
    assert problem.where == f"x.toml:{line}"
    assert problem.what.startswith("is no TOML: ")
    assert problem.hint


def test_brackets_without_end_are_refused() -> None:
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse("a = " + "[" * 20000 + "]" * 20000, "x.toml")


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "none.toml")
    [problem] = caught.value.problems
    assert problem.where == str(tmp_path / "none.toml")
    assert "No such file" in problem.what
    assert "midwatch init" in problem.hint


def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "shut.toml"
    path.write_text("")
    path.chmod(0)
    with (
        ordinary_user(),
        pytest.raises(ConfigError, match=r"shut\.toml: cannot be read: Permission denied \(make it readable"),
    ):
        load(path)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(ConfigError, match="it is not a regular file"):
        load(tmp_path / "pipe.toml")
    with pytest.raises(ConfigError, match="it is a directory"):
        load(tmp_path)


def test_a_file_that_is_not_text_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"a = 1\nb = '\xff'\n")
    with pytest.raises(ConfigError, match=r"x\.toml:2: is not UTF-8 text"):
        load(path)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"#" * (LARGEST + 1))
    with pytest.raises(ConfigError, match="at most 4194304 are read"):
        load(path)
