"""What no recipe is, though it is TOML: told with its line, never with a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from amibuild.errors import Problem, RecipeError
from amibuild.recipe.load import load_recipe

SMALLEST = '[image]\nname = "game-host"\n'


def problem(path: Path, text: str, *overrides: str) -> Problem:
    path.write_text(text)
    with pytest.raises(RecipeError) as raised:
        load_recipe(path, overrides)
    (found,) = raised.value.problems
    return found


@pytest.mark.parametrize(
    "text",
    [
        f"x = {'[' * 3000}{']' * 3000}",
        f"x = {'[' * 400}{']' * 400}",
        f"x = {'{a = ' * 3000}1{'}' * 3000}",
        f"{'a.' * 3000}a = 1",
        f"[{'a.' * 3000}a]",
    ],
)
def test_what_is_nested_too_deep_is_told_with_its_line(tmp_path: Path, text: str) -> None:
    found = problem(tmp_path / "amibuild.toml", f"# [[\n{SMALLEST}{text}\n")
    assert found.line == 4
    assert found.problem.endswith("nested more than 50 deep")


def test_brackets_in_strings_and_comments_are_no_nesting(tmp_path: Path) -> None:
    path = tmp_path / "amibuild.toml"
    path.write_text(f'{SMALLEST}description = "{"[" * 60}"  # {"{" * 60}\n')
    assert load_recipe(path).image.description == "[" * 60


def test_a_number_that_is_too_long_is_told_with_its_line(tmp_path: Path) -> None:
    found = problem(tmp_path / "amibuild.toml", f"{SMALLEST}x = {'9' * 5000}\n")
    assert (found.line, found.problem) == (3, "is not TOML: a number is too long")


@pytest.mark.parametrize("value", ["[" * 3000 + "]" * 3000, "9" * 5000])
def test_odd_values_of_set_are_wrong_values(tmp_path: Path, value: str) -> None:
    found = problem(tmp_path / "amibuild.toml", SMALLEST, f"builder.volume_gib={value}")
    assert str(found) == "--set: builder.volume_gib: must be a whole number, and is a string"


@pytest.mark.parametrize("override", ["#a=3", "#=3", "=3"])
def test_a_key_of_set_that_is_none_is_told_as_such(tmp_path: Path, override: str) -> None:
    found = problem(tmp_path / "amibuild.toml", SMALLEST, override)
    name = override.partition("=")[0]
    assert found.problem == f"{name!r} is not a dotted key, such as builder.volume_gib"


@pytest.mark.parametrize("given", ['[source]\nssm = "/x"\n', ""])
def test_a_table_of_set_takes_the_place_of_another_source(tmp_path: Path, given: str) -> None:
    path = tmp_path / "amibuild.toml"
    path.write_text(SMALLEST + given)
    recipe = load_recipe(path, ["source.filter.name=debian-*", 'source.filter.owners=["self"]'])
    assert recipe.source.model_dump(exclude_none=True) == {
        "filter": {"name": "debian-*", "owners": ("self",)}
    }


def test_one_key_of_set_beside_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "amibuild.toml"
    path.write_text(f'{SMALLEST}[source.filter]\nname = "a-*"\nowners = ["self"]\n')
    found = load_recipe(path, ["source.filter.name=b-*"]).source.filter
    assert found is not None
    assert (found.name, found.owners) == ("b-*", ("self",))


def test_what_a_table_of_set_lacks_is_told_of_set(tmp_path: Path) -> None:
    text = f'{SMALLEST}[source]\nssm = "/x"\n'
    found = problem(tmp_path / "amibuild.toml", text, "source.filter.name=debian-*")
    assert str(found).startswith("--set: source.filter.owners: is missing: Account ids")
