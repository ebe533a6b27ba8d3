"""What no recipe is, though it is TOML: told with its line, never with a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from botocore.utils import is_valid_endpoint_url, is_valid_ipv6_endpoint_url

from amibuild.errors import Problem, RecipeError
from amibuild.recipe.document import MOST
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
        f"{'a.' * 400_000}a = 1",
        f"[{'a.' * 400_000}a]",
        f"x = {{ {'a . ' * 400}a = 1 }}",
        f"""{"'a'." * 400}'a' = 1""",
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


def test_dots_in_what_is_no_key_are_no_nesting(tmp_path: Path) -> None:
    path = tmp_path / "amibuild.toml"
    numbers = ", ".join(["1.5"] * 100)
    found = problem(path, f"{SMALLEST}x = [{numbers}]\n")
    assert found.problem == "is not a known key"
    found = problem(path, f"[image]\nname = It is a host. {'And so on. ' * 60}\n")
    assert found.problem == "is not TOML: a string needs quotes"


@pytest.mark.parametrize("begin", ["", "http://a/?"])
@pytest.mark.parametrize(
    "line",
    [
        "description = {begin}{long}",
        'description = "{begin}{long}"',
        'description = "{begin}{long}" today',
    ],
)
def test_a_mistake_on_a_line_of_a_megabyte_is_told(tmp_path: Path, line: str, begin: str) -> None:
    text = line.format(begin=begin, long="a" * 1_000_000)
    found = problem(tmp_path / "amibuild.toml", f"{SMALLEST}{text}\n")
    assert found.line == 3
    assert found.excerpt is not None
    assert len(str(found)) + len(found.excerpt.text) < 2500


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (SMALLEST + "".join(f"a{n} = 1\n" for n in range(60_000)), 60_000),
        (f"{SMALLEST}[publish]\naccounts = [{'1, ' * 60_000}]\n", 60_000),
    ],
    ids=["unknown keys", "items of one line"],
)
def test_of_thousands_of_mistakes_the_first_are_told(tmp_path: Path, text: str, count: int) -> None:
    path = tmp_path / "amibuild.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as raised:
        load_recipe(path)
    first, *others = raised.value.problems
    assert str(first) == f"{path}: has {count} mistakes, of which {MOST} are told"
    assert len(others) == MOST
    assert all(other.line for other in others)


def test_a_list_of_thousands_has_its_item_that_stands_twice(tmp_path: Path) -> None:
    steps = ", ".join(f'"a{n}"' for n in [*range(60_000), 7])
    found = problem(tmp_path / "amibuild.toml", f"{SMALLEST}[provision]\nsteps = [{steps}]\n")
    assert found.problem == "'a7' stands here twice"


@pytest.mark.parametrize(
    "url",
    ["http://localhost:5000", "http://[::1]:5000/x", "https://ec2.example.com.", "http://10.0.0.1"],
)
def test_an_endpoint_that_botocore_takes_is_one(tmp_path: Path, url: str) -> None:
    path = tmp_path / "amibuild.toml"
    path.write_text(f'{SMALLEST}[aws.endpoints]\nec2 = "{url}"\n')
    assert load_recipe(path).aws.endpoints == {"ec2": url}
    assert is_valid_endpoint_url(url) or is_valid_ipv6_endpoint_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1",
        "http://[::g]",
        "http://a:b",
        "http://a:70000",
        "http://:1",
        "http://a_b",
        "http://-a",
        "http://a..b",
        "http://user@",
        f"http://{'a.' * 200}a",
    ],
)
def test_an_endpoint_that_botocore_would_raise_for_is_none(tmp_path: Path, url: str) -> None:
    text = f'{SMALLEST}[aws.endpoints]\nec2 = "{url}"\n'
    found = problem(tmp_path / "amibuild.toml", text)
    assert (found.line, found.key) == (4, "aws.endpoints.ec2")
    assert found.problem.startswith(f"{url!r} is not a URL")


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
