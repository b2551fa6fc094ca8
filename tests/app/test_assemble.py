"""What is read from files before anything is built, and what counts as changed since."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.home import Home

from daemon.app.assemble import assemble, assemble_to_watch
from daemon.errors import ConfigError, PolicyError


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.configure()
    home.allow()
    return home


def test_a_sound_home_is_read(home: Home) -> None:
    found = assemble(home.config)
    assert found.trouble == ""
    assert "mend" in {rule.id for rule in found.policy.rules}
    assert found.changed() == []


def test_a_failing_inline_test_is_a_problem_with_its_line(home: Home) -> None:
    law = home.allow(
        'schema = 1\n\ntest = [{ action = "noop", target = "host", expect = { effect = "deny" } }]\n'
    )
    with pytest.raises(PolicyError, match=f"{law}:3: this test fails"):
        assemble(home.config)


def test_with_a_broken_policy_it_watches_and_denies(home: Home) -> None:
    law = home.allow("schema = 1\n\n[[rule]]\nid = \n")
    with pytest.raises(PolicyError, match=f"{law}:4"):
        assemble(home.config)
    found = assemble_to_watch(home.config)
    assert f"{law}:4" in found.trouble
    assert found.policy.rules == ()


def test_a_broken_runbook_is_a_bad_configuration(home: Home) -> None:
    book = home.write("runbooks.d/a.toml", "schema = 1\n\n[[runbook]]\nid = 7\n")
    with pytest.raises(ConfigError, match=f"{book}:4"):
        assemble_to_watch(home.config)


def test_a_place_for_policies_that_cannot_be_looked_into_is_told(home: Home) -> None:
    home.path("policies.d").joinpath("site.toml").unlink()
    home.path("policies.d").rmdir()
    assert assemble(home.config).trouble == ""  # none at all is fine
    home.path("policies.d").write_text("")
    with pytest.raises(PolicyError, match=r"policies\.d: cannot be listed: Not a directory"):
        assemble(home.config)
    assert "Not a directory" in assemble_to_watch(home.config).trouble


def test_a_place_for_runbooks_that_cannot_be_looked_into_is_told(home: Home) -> None:
    home.path("runbooks.d").rmdir()
    home.path("runbooks.d").write_text("")
    with pytest.raises(ConfigError, match=r"runbooks\.d: cannot be listed"):
        assemble_to_watch(home.config)


def test_a_law_that_is_no_file_is_trouble_not_the_end(home: Home) -> None:
    home.path("policies.d/folder.toml").mkdir()
    assert "folder.toml" in assemble_to_watch(home.config).trouble


@pytest.mark.parametrize("name", ["policies.d/site.toml", "config.toml"])
def test_an_edited_file_counts_as_changed_until_it_is_put_back(home: Home, name: str) -> None:
    found, text = assemble(home.config), home.path(name).read_text()
    home.append(name, "# a note\n")
    assert found.changed() == [str(home.path(name))]
    home.path(name).write_text(text)
    assert found.changed() == []


def test_files_that_come_and_go_count_as_changed(home: Home) -> None:
    found = assemble(home.config)
    home.path("policies.d/site.toml").unlink()
    home.write("runbooks.d/new.toml", "schema = 1\n")
    home.path("conf.d").mkdir()
    home.write("conf.d/more.toml", "")
    names = ["conf.d/more.toml", "policies.d/site.toml", "runbooks.d/new.toml"]
    assert found.changed() == [str(home.path(name)) for name in names]
