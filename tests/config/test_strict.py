"""Each fault that a person can write into a table: where it is, what is wrong, what is accepted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from annotated_types import Unit
from pydantic import BaseModel, ConfigDict, Field, model_validator

from daemon.config.settings import Secret
from daemon.config.strict import validate
from daemon.config.toml import parse
from daemon.errors import ConfigError

Seconds = Annotated[float, Unit("s")]
Bytes = Annotated[int, Unit("B")]
Share = Annotated[float, Unit("%")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Inner(Strict):
    wait: Seconds = 1.0
    word: str = ""


class Model(Strict):
    every: Seconds = 1.0
    grace: Seconds | None = None
    steps: list[Seconds] = Field(default_factory=list)
    pair: tuple[Seconds, ...] = ()
    named: dict[str, Seconds] = Field(default_factory=dict)
    size: Bytes = 0
    used: Share = 0.0
    inner: Inner = Inner()
    inners: list[Inner] = Field(default_factory=list)
    by_name: dict[str, Inner] = Field(default_factory=dict)
    for_: Seconds = Field(default=0.0, alias="for")
    mode: Literal["observe", "act"] = "observe"
    count: int = Field(default=1, ge=1, le=5)
    flag: bool = False
    name: str = Field(default="x", pattern="^[a-z]+$")
    who: list[str] = Field(default_factory=list, max_length=2)
    headers: dict[str, str | Secret] = Field(default_factory=dict)
    key: Secret | None = None
    default: str | int | bool | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Model:
        if self.flag and self.mode == "act":
            raise ValueError("`flag` and `act` exclude each other")
        return self


class Needs(Strict):
    url: str


def read(text: str, model: type[BaseModel] = Model) -> Any:
    doc = parse(text, "c.toml")
    return validate(model, doc.data, doc)


def faults(text: str, model: type[BaseModel] = Model) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, model)
    return [str(problem) for problem in caught.value.problems]


def test_units_become_numbers_wherever_they_stand() -> None:
    got = read("""
        every = "10m"
        grace = "500ms"
        steps = ["1s", "2h", 0]
        pair  = ["1s", "1d"]
        named = { a = "3s" }
        size  = "20GiB"
        used  = "34%"
        for   = "1w"
        inner = { wait = "2s" }
        inners = [{ wait = "4s" }, {}]
        by_name.x.wait = "5s"
    """)
    assert (got.every, got.grace, got.steps, got.pair, got.named) == (
        600.0,
        0.5,
        [1.0, 7200.0, 0],
        (1.0, 86400.0),
        {"a": 3.0},
    )
    assert (got.size, got.used, got.for_) == (20 * 2**30, pytest.approx(0.34), 604800.0)
    assert (got.inner.wait, [inner.wait for inner in got.inners], got.by_name["x"].wait) == (
        2.0,
        [4.0, 1.0],
        5.0,
    )


def test_nothing_at_all_needs_no_unit() -> None:
    assert read("every = 0\nsize = 0\nused = 0.0").every == 0


UNIT = 'write "10s": a number and ms, s, m, h, d, w'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("every = 10", f"c.toml:1: `every`: 10 has no unit ({UNIT})"),
        ("\nevery = 1.5", f"c.toml:2: `every`: 1.5 has no unit ({UNIT})"),
        ('every = "10"', f'c.toml:1: `every`: "10" is no duration ({UNIT})'),
        ('every = "10 parsecs"', f'c.toml:1: `every`: "10 parsecs" is no duration ({UNIT})'),
        ("every = true", f"c.toml:1: `every`: true is no duration ({UNIT})"),
        ("every = false", f"c.toml:1: `every`: false is no duration ({UNIT})"),
        ("every = [1]", f"c.toml:1: `every`: a list is no duration ({UNIT})"),
        ('grace = "3"', f'c.toml:1: `grace`: "3" is no duration ({UNIT})'),
        ('steps = ["1s",\n 7]', f"c.toml:2: element 2 of `steps`: 7 has no unit ({UNIT})"),
        ("[inner]\nwait = 3", f"c.toml:2: `wait`: 3 has no unit ({UNIT})"),
        ("[[inners]]\n[[inners]]\nwait = 3", f"c.toml:3: `wait`: 3 has no unit ({UNIT})"),
        ("used = 0.9", 'c.toml:1: `used`: 0.9 has no unit (write "90%": 0% to 100%)'),
        ('used = "190%"', 'c.toml:1: `used`: "190%" is no share (write "90%": 0% to 100%)'),
        (
            'size = "20G"',
            'c.toml:1: `size`: "20G" is no size (write "20MiB": a number and B, KB, MB, GB, TB, KiB, MiB, GiB, TiB)',
        ),
    ],
)
def test_a_number_needs_its_unit(text: str, told: str) -> None:
    assert faults(text) == [told]


def test_an_unknown_key_comes_with_the_likeliest_and_all() -> None:
    [told] = faults('\nevry = "1s"')
    assert told.startswith(
        "c.toml:2: unknown key `evry` (did you mean `every`? accepted: by_name, count, default, every, flag, for, "
    )


def test_an_unknown_key_far_inside() -> None:
    assert faults("[[inners]]\n[[inners]]\nwrd = 'x'") == [
        "c.toml:3: unknown key `wrd` (did you mean `word`? accepted: wait, word)"
    ]


def test_a_field_is_called_as_people_write_it() -> None:
    [told] = faults('for_ = "1s"')
    assert "unknown key `for_` (did you mean `for`?" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name = 5", "c.toml:1: `name`: expected text, got 5"),
        ('count = "5"', 'c.toml:1: `count`: expected a whole number, got "5"'),
        ("count = 1.5", "c.toml:1: `count`: expected a whole number, got 1.5"),
        ("flag = 1", "c.toml:1: `flag`: expected true or false, got 1"),
        ('who = "anna"', 'c.toml:1: `who`: expected a list, got "anna"'),
        ("who = ['a', 3]", "c.toml:1: element 2 of `who`: expected text, got 3"),
        ("inner = 'x'", 'c.toml:1: `inner`: expected a table, got "x"'),
        ("by_name = []", "c.toml:1: `by_name`: expected a table, got a list"),
        ("default = []", "c.toml:1: `default`: expected text or a whole number or true or false, got a list"),
        ("mode = 'ask'", "c.toml:1: `mode`: \"ask\" is not accepted (accepted: 'observe' or 'act')"),
        ("count = 0", "c.toml:1: `count`: 0 is out of range (at least 1)"),
        ("count = 6", "c.toml:1: `count`: 6 is out of range (at most 5)"),
        ("name = 'X1'", 'c.toml:1: `name`: "X1" is not accepted (it must match ^[a-z]+$)'),
        (
            "who = ['a', 'b', 'c']",
            "c.toml:1: `who`: List should have at most 2 items after validation, not 3",
        ),
        ("flag = true\nmode = 'act'", "c.toml: this table: `flag` and `act` exclude each other"),
        ("\n[headers]\na = 3", "c.toml:3: `a`: expected text or a table, got 3"),
        (
            "headers = { a = { file = '/x', env = 'Y' } }",
            "c.toml:1: `a`: a secret has exactly one of `credential`, `file`, `env`",
        ),
        (
            "headers = { a = { flie = '/x' } }",
            "c.toml:1: unknown key `flie` (did you mean `file`? accepted: credential, env, file)",
        ),
        ("headers = { a = { file = 3 } }", "c.toml:1: `file`: expected text, got 3"),
    ],
)
def test_wrong_values_are_told_in_plain_words(text: str, told: str) -> None:
    assert faults(text) == [told]


def test_a_long_value_is_cut() -> None:
    [told] = faults(f"mode = '{'x' * 500}'")
    assert len(told) < 150


def test_a_secret_in_the_file_is_refused_and_not_repeated() -> None:
    word = "hunter" + "2"
    [told] = faults(f"key = '{word}'")
    assert told.startswith(
        'c.toml:1: `key`: a secret never stands in the file (write { credential = "NAME" }'
    )
    assert word not in told


def test_a_missing_key_is_told_at_its_table() -> None:
    doc = parse("\n[things.a]\n", "c.toml")
    with pytest.raises(ConfigError, match=r"c\.toml:2: `url` is missing \(add url = \.\.\.\)"):
        validate(Needs, doc.data["things"]["a"], doc, ("things", "a"))


def test_everything_wrong_is_told_at_once() -> None:
    told = faults('evry = "1s"\nevery = 3\ncount = "x"\n[inner]\nword = 1')
    assert sorted(line.partition(": ")[0] for line in told) == [
        "c.toml:1",
        "c.toml:2",
        "c.toml:3",
        "c.toml:5",
    ]
