"""A recipe is read whole, or every mistake in it is told with its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from amibuild.errors import Problem, RecipeError
from amibuild.recipe.load import load_recipe
from amibuild.recipe.model import Communicator, Recipe, Target, recipe_schema

REPOSITORY = Path(__file__).parents[2]
SMALLEST = '[image]\nname = "game-host"\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "amibuild.toml"


def load(path: Path, text: str, *overrides: str) -> Recipe:
    path.write_text(dedent(text))
    return load_recipe(path, overrides)


def problems(path: Path, text: str, *overrides: str) -> tuple[Problem, ...]:
    with pytest.raises(RecipeError) as raised:
        load(path, text, *overrides)
    return raised.value.problems


def told(path: Path, text: str, *overrides: str) -> list[str]:
    """Each problem as the user sees it, with the folder cut off."""
    return [str(p).replace(f"{path.parent}/", "") for p in problems(path, text, *overrides)]


def test_the_shipped_recipe_is_right() -> None:
    recipe = load_recipe(REPOSITORY / "amibuild.toml")
    assert recipe.provision.steps == ("os", "logging", "hardening", "idle-stop")
    assert recipe.provision.services == ("minetest", "bzflag", "mumble", "openttd")
    assert recipe.target.default is Target.LOCAL


def test_the_shipped_recipe_names_no_value_but_defaults() -> None:
    """What it shows is what a user gets by leaving it out; the rest is their own choice."""
    shipped = load_recipe(REPOSITORY / "amibuild.toml")
    own = {"provision", "publish"}
    bare = Recipe.model_validate({"image": {"name": shipped.image.name}})
    assert shipped.model_dump(exclude=own) == bare.model_dump(exclude=own)


def test_a_name_is_all_that_a_recipe_needs(path: Path) -> None:
    recipe = load(path, SMALLEST)
    assert recipe.source.ssm == "/aws/service/debian/release/13/latest/amd64"
    assert recipe.builder.volume_gib == 8
    assert recipe.builder.communicator is Communicator.SSM


def test_it_comes_back_from_json_as_it_was(path: Path) -> None:
    recipe = load(path, SMALLEST + '[provision.params.os]\npackages = ["jq"]\nupgrade = false\n')
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_it_cannot_be_changed(path: Path) -> None:
    recipe = load(path, SMALLEST)
    with pytest.raises(ValueError, match="frozen"):
        recipe.builder.volume_gib = 9  # type: ignore[misc]


def test_all_mistakes_are_told_at_once(path: Path) -> None:
    text = """\
        [image]
        name = "Game Host"
        [source]
        ssm = "/x"
        id = "ami-0123456789abcdef0"
        [builder]
        volum_gib = 12
        communicator = "shs"
        instance_types = ["c7i.large", "big"]
        [verify]
        max_age_days = "7"
        [publish]
        accounts = ["123"]
        """
    assert told(path, text) == [
        "amibuild.toml:2: image.name: 'Game Host' is not an image name: 2 to 100 lower-case"
        " letters, digits and -, no - in front",
        "amibuild.toml:3: source: needs exactly one of ssm, id and filter, and has ssm and id",
        "amibuild.toml:7: builder.volum_gib: is not a known key; did you mean volume_gib?",
        "amibuild.toml:8: builder.communicator: 'shs' is not one of ssm, ssh; did you mean ssm?",
        "amibuild.toml:9: builder.instance_types[1]: 'big' is not an instance type"
        " such as c7i.large",
        "amibuild.toml:11: verify.max_age_days: must be a whole number, and is a string",
        "amibuild.toml:13: publish.accounts[0]: '123' is not an account id of 12 digits",
    ]


def test_a_missing_section_is_told(path: Path) -> None:
    assert told(path, "[builder]\nvolume_gib = 4\n") == [
        "amibuild.toml: image: is missing: What the image is called"
    ]


def test_a_missing_key_is_told_at_its_table(path: Path) -> None:
    text = '[image]\nname = "x1"\n[source.filter]\nname = "debian-*"\n'
    assert told(path, text) == [
        "amibuild.toml:3: source.filter.owners: is missing:"
        " Account ids, or amazon, aws-marketplace or self"
    ]


def test_a_key_in_the_wrong_table_is_led_home(path: Path) -> None:
    (problem,) = problems(path, '[image]\nname = "x1"\nvolume_gib = 4\n')
    assert problem.suggestion == "did you mean builder.volume_gib?"


def test_a_key_like_no_other_is_told_with_those_that_there_are(path: Path) -> None:
    (problem,) = problems(path, SMALLEST + "zzz = 1\n")
    assert problem.suggestion == "known are name, description"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[builder]\nvolume_gib = true\n", "must be a whole number"),
        ("[builder]\nvolume_gib = 0\n", "must be at least 1"),
        ("[builder]\ninstance_types = []\n", "needs at least 1 item"),
        ('[builder]\ninstance_types = ["c7i.large", "c7i.large"]\n', "stands here twice"),
        ('[aws]\npublic_ip = "yes"\n', "must be true or false, and is a string"),
        ('[aws]\nregion = "useast1"\n', "is not a region"),
        ('[aws]\nsubnet = "vpc-1"\n', "is not a subnet id"),
        ('[aws]\nsource_cidr = "everywhere"\n', "is not a network"),
        ('[aws.endpoints]\nec2 = "localhost"\n', "is not a URL"),
        ('[channels]\nparameter = "/a/{image}"\n', "needs {channel}"),
        ('[channels]\nparameter = "/a/{chanel}/{channel}"\n', "can't fill in {chanel}"),
        ('[channels]\nparameter = "a/{channel}"\n', "must begin with /"),
        ('[channels]\nparameter = "/a/{channel"\n', "'/a/{channel'"),
        ('[channels]\norder = ["Nightly"]\n', "is not a channel name"),
        ('[source]\nid = "ami-1"\n', "is not an AMI id"),
        ("[source]\n", "has none of them"),
        ('[provision]\nsteps = ["OS"]\n', "lower-case words"),
        ("[provision.params.os]\nx = 1.5\n", "must be a string, a whole number"),
        ("[provision.params.os]\nx = [1]\n", "must be a string, a whole number"),
        ("[provision.params]\nos = 1\n", "must be a table, and is a whole number"),
        ('[target]\ndefault = "gcp"\n', "is not one of local, aws"),
    ],
)
def test_a_wrong_value_is_told_once_with_its_reason(path: Path, text: str, problem: str) -> None:
    (found,) = problems(path, SMALLEST + text)
    assert problem in found.problem
    assert found.line is not None
    assert found.line > 2


def test_a_syntax_error_has_its_line(path: Path) -> None:
    (problem,) = problems(path, SMALLEST + "[builder]\nvolume_gib = \n")
    assert (problem.line, problem.problem) == (4, "is not TOML: a value is missing")


def test_a_text_that_breaks_off_is_told_at_its_last_line(path: Path) -> None:
    (problem,) = problems(path, '[image]\nname = "x"\nextra = [1,\n')
    assert problem.line == 3


def test_a_key_given_twice_is_told(path: Path) -> None:
    (problem,) = problems(path, SMALLEST + 'name = "again"\n')
    assert problem.line == 3


def test_a_missing_file_is_told(path: Path) -> None:
    with pytest.raises(RecipeError, match=r"there is no such file; amibuild init"):
        load_recipe(path)


def test_a_folder_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="can't be read"):
        load_recipe(tmp_path)


def test_a_file_that_is_not_utf8_is_told_with_its_line(path: Path) -> None:
    path.write_bytes(b'[image]\nname = "caf\xe9"\n')
    with pytest.raises(RecipeError) as raised:
        load_recipe(path)
    (problem,) = raised.value.problems
    assert (problem.line, problem.problem) == (2, "is not UTF-8: byte 0xe9 can't stand here")


def test_byte_order_mark_and_carriage_returns_do_no_harm(path: Path) -> None:
    path.write_bytes(b'\xef\xbb\xbf[image]\r\nname = "game-host"\r\n')
    assert load_recipe(path).image.name == "game-host"


def test_set_lays_values_over_the_file(path: Path) -> None:
    recipe = load(
        path,
        SMALLEST,
        "builder.volume_gib=12",
        "image.name=other",
        'publish.accounts=["123456789012"]',
        "aws.public_ip=true",
        "provision.params.os.timezone=Europe/Berlin",
    )
    assert recipe.builder.volume_gib == 12
    assert recipe.image.name == "other"
    assert recipe.publish.accounts == ("123456789012",)
    assert recipe.aws.public_ip is True
    assert recipe.provision.params == {"os": {"timezone": "Europe/Berlin"}}


def test_set_takes_a_quoted_key_and_an_equals_sign_in_the_value(path: Path) -> None:
    recipe = load(path, SMALLEST, 'provision.params."os".locale=a=b')
    assert recipe.provision.params["os"]["locale"] == "a=b"


def test_set_of_one_source_takes_the_place_of_another(path: Path) -> None:
    recipe = load(path, SMALLEST + '[source]\nssm = "/x"\n', "source.id=ami-0123456789abcdef0")
    assert (recipe.source.id, recipe.source.ssm) == ("ami-0123456789abcdef0", None)


def test_mistakes_in_set_are_told_as_such(path: Path) -> None:
    overrides = [
        "builder.volum_gib=1",
        "volume_gib",
        "a b=1",
        "image.name.x=1",
        "builder.volume_gib=x",
    ]
    assert told(path, SMALLEST, *overrides) == [
        "--set: 'volume_gib' is not KEY=VALUE",
        "--set: 'a b' is not a dotted key, such as builder.volume_gib",
        "--set: image.name.x: image.name is not a table",
        "--set: builder.volum_gib: is not a known key; did you mean volume_gib?",
        "--set: builder.volume_gib: must be a whole number, and is a string",
    ]


def test_a_value_with_a_line_break_cannot_smuggle_in_a_key(path: Path) -> None:
    recipe = load(path, SMALLEST, "image.description=1\nvalue2 = 2")
    assert recipe.image.description == "1\nvalue2 = 2"


def schema_objects(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "Recipe", schema
    yield from schema.get("$defs", {}).items()


def test_every_field_has_a_description() -> None:
    schema = recipe_schema()
    without = [
        f"{name}.{key}"
        for name, definition in schema_objects(schema)
        for key, field in definition.get("properties", {}).items()
        # pydantic leaves it to the table when both say the same
        if not {**schema["$defs"].get(field.get("$ref", "")[8:], {}), **field}.get("description")
    ]
    assert without == []


def test_the_schema_forbids_unknown_keys_everywhere() -> None:
    tables = [d for _, d in schema_objects(recipe_schema()) if d.get("type") == "object"]
    assert len(tables) > 10
    assert all(definition["additionalProperties"] is False for definition in tables)


def test_problems_are_sorted_by_line_and_told_once(path: Path) -> None:
    found: Sequence[Problem] = problems(path, SMALLEST + "b = 1\na = 2\n")
    assert [p.key for p in found] == ["image.b", "image.a"]
