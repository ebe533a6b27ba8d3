"""What a recipe uses is found, checked and put in order; every mistake in it is told at once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest

from amibuild.errors import RecipeError
from amibuild.library.bootstrap import LIMIT_BYTES, bootstrap_user_data, lease_user_data
from amibuild.library.load import (
    Library,
    build_steps,
    bundled_provisioners,
    hygiene_rules,
    load_library,
    load_project_parts,
)
from amibuild.library.provisioner import provisioner_schema
from amibuild.library.service import service_schema
from amibuild.library.step import BuildStep, StepKind
from amibuild.recipe.load import load_recipe

RUN = "#!/usr/bin/env bash\nset -euo pipefail\necho hello\n"
TOML = 'purpose = "Says hello."\n'
LEASE = timedelta(hours=2)


class Home:
    """A folder with a recipe and provisioners of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "amibuild.toml"

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    def provisioner(self, name: str, toml: str = TOML, run: str = RUN) -> Path:
        folder = f"provisioners/{name}"
        self.write(f"{folder}/provisioner.toml", toml)
        self.write(f"{folder}/run.sh", run)
        return self.write(f"{folder}/test_{name.replace('-', '_')}.py", "def test_x(): pass\n")

    def uses(self, provision: str) -> None:
        self.write("amibuild.toml", '[image]\nname = "game-host"\n[provision]\n' + provision)

    def library(self) -> Library:
        return load_library(self.path, load_recipe(self.recipe))

    def steps(self) -> tuple[BuildStep, ...]:
        return build_steps(load_recipe(self.recipe), self.library())

    def told(self) -> list[str]:
        with pytest.raises(RecipeError) as raised:
            self.library()
        return [str(p).replace(f"{self.path}/", "") for p in raised.value.problems]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def step(steps: tuple[BuildStep, ...], name: str) -> BuildStep:
    (found,) = (s for s in steps if s.name == name)
    return found


def test_the_agent_comes_first_and_seal_last(home: Home) -> None:
    home.uses('steps = ["os"]\nservices = ["minetest"]\n')
    assert [(s.name, s.kind) for s in home.steps()] == [
        ("ssm-agent", StepKind.PROVISIONER),
        ("os", StepKind.PROVISIONER),
        ("minetest", StepKind.SERVICE),
        ("seal", StepKind.PROVISIONER),
    ]


def test_the_same_files_give_the_same_steps(home: Home) -> None:
    home.uses('steps = ["os"]\nservices = ["minetest"]\n')
    assert [s.digest for s in home.steps()] == [s.digest for s in home.steps()]


def test_a_folder_beside_the_recipe_takes_the_place_of_the_bundled_one(home: Home) -> None:
    home.uses('steps = ["os"]\n')
    home.provisioner("os")
    assert step(home.steps(), "os").script == RUN


def test_parameters_reach_the_script_as_environment(home: Home) -> None:
    home.uses(
        """\
        steps = ["greet"]
        [provision.params.greet]
        who = "it's \\"you\\""
        loud = true
        words = ["a", "b"]
        lines = ["a b", "c"]
        """.replace("        ", "")
    )
    home.provisioner(
        "greet",
        """\
        purpose = "Says hello."
        [parameters.who]
        type = "string"
        description = "Whom."
        [parameters.times]
        type = "integer"
        default = 3
        description = "How often."
        [parameters.loud]
        type = "boolean"
        default = false
        description = "How."
        [parameters.words]
        type = "list"
        default = []
        description = "With what."
        [parameters.lines]
        type = "lines"
        default = []
        description = "With which lines."
        """,
    )
    greet = step(home.steps(), "greet")
    assert greet.environment == {
        "PARAM_WHO": 'it\'s "you"',
        "PARAM_TIMES": "3",
        "PARAM_LOUD": "true",
        "PARAM_WORDS": "a b",
        "PARAM_LINES": "a b\nc",
    }
    assert greet.facts == {
        "parameters": {
            "who": 'it\'s "you"',
            "times": 3,
            "loud": True,
            "words": ["a", "b"],
            "lines": ["a b", "c"],
        }
    }


def test_files_travel_with_their_folders_and_modes(home: Home) -> None:
    home.uses('steps = ["greet"]\n')
    home.provisioner("greet")
    home.write("provisioners/greet/files/etc/greeting", "hello\n")
    home.write("provisioners/greet/files/bin/greet", "#!/bin/sh\n").chmod(0o755)
    files = {f.path: (f.content, f.mode) for f in step(home.steps(), "greet").files}
    assert files == {
        "files/etc/greeting": (b"hello\n", 0o644),
        "files/bin/greet": (b"#!/bin/sh\n", 0o755),
    }


def test_what_python_leaves_beside_files_is_none_of_them(home: Home) -> None:
    home.uses('steps = ["greet"]\n')
    home.provisioner("greet")
    home.write("provisioners/greet/files/greeting/__pycache__/hello.cpython-311.pyc", "x")
    assert step(home.steps(), "greet").files == ()


def test_checks_change_the_proof_but_not_the_image(home: Home) -> None:
    home.uses('steps = ["greet"]\n')
    check = home.provisioner("greet")
    before = step(home.steps(), "greet")
    check.write_text("def test_y(): pass\n")
    after = step(home.steps(), "greet")
    assert before.checks != after.checks
    assert before.digest == after.digest


def test_another_script_is_another_image(home: Home) -> None:
    home.uses('steps = ["greet"]\n')
    home.provisioner("greet")
    before = step(home.steps(), "greet")
    home.provisioner("greet", run=RUN + "echo more\n")
    assert before.digest != step(home.steps(), "greet").digest


def test_unknown_names_are_told_in_the_recipe_with_a_suggestion(home: Home) -> None:
    home.uses('steps = ["oss", "zzz"]\nservices = ["minetst"]\n')
    assert home.told() == [
        "amibuild.toml:4: provision.steps[0]: there is no provisioner called oss; did you mean os?",
        "amibuild.toml:4: provision.steps[1]: there is no provisioner called zzz;"
        " there are hardening, idle-stop, logging, os",
        "amibuild.toml:5: provision.services[0]: there is no service called minetst;"
        " did you mean minetest?",
    ]


def test_what_amibuild_adds_itself_is_not_taken_from_the_recipe(home: Home) -> None:
    home.uses('steps = ["ssm-agent", "seal"]\n')
    assert home.told() == [
        "amibuild.toml:4: provision.steps[0]: ssm-agent is added first by amibuild itself;"
        " leave it out",
        "amibuild.toml:4: provision.steps[1]: seal is added last by amibuild itself; leave it out",
    ]


def test_a_service_and_a_step_of_one_name_would_be_told_apart_by_nobody(home: Home) -> None:
    home.uses('steps = ["minetest"]\nservices = ["minetest"]\n')
    home.provisioner("minetest")
    (problem,) = home.told()
    assert problem.endswith(
        "provision.services[0]: a step is called minetest too; give the service another name"
    )


def test_every_mistake_in_a_provisioner_is_told(home: Home) -> None:
    home.uses('steps = ["greet"]\n')
    home.write("provisioners/greet/run.sh", "#!/bin/sh\necho hello\r\n")
    home.write("provisioners/greet/test_other.py", "def test_x(:\n")
    home.write("provisioners/greet/files/real", "")
    (home.path / "provisioners/greet/files/link").symlink_to("/etc/passwd")
    home.write(
        "provisioners/greet/provisioner.toml",
        """\
        timeout = 60
        after = ["greet"]
        [parameters.Who]
        type = "strin"
        [parameters.many]
        type = "integer"
        default = 9
        maximum = 5
        description = "How many."
        """,
    )
    at = "provisioners/greet"
    assert home.told() == [
        f"{at}/files/link: is a link to /etc/passwd, out of files/: let run.sh make it by `ln -s`",
        f"{at}/provisioner.toml: purpose: is missing: What it is for, in a sentence",
        f"{at}/provisioner.toml:1: timeout: is not a known key; did you mean timeout_s?",
        f"{at}/provisioner.toml:3: parameters.Who.description: is missing:"
        " What it is for, in a sentence",
        f"{at}/provisioner.toml:4: parameters.Who.type: 'strin' is not one of"
        " string, integer, boolean, list, artifact, lines; did you mean string?",
        f"{at}/provisioner.toml:7: parameters.many.default: must be at most 5",
        f"{at}/run.sh: needs the line set -euo pipefail, or a failed command would go unseen",
        f"{at}/run.sh:1: must begin with #!/usr/bin/env bash, for bash is what runs it",
        f"{at}/run.sh:2: has a carriage return, which bash can't read;"
        " save it with line ends as Linux has them",
        f"{at}/test_greet.py: is missing: what a provisioner promises is checked on the finished"
        " image",
        f"{at}/test_other.py:1: is not Python: invalid syntax",
    ]


def test_a_step_names_those_of_its_checks_that_also_run_on_the_builder(home: Home) -> None:
    home.uses('steps = ["greet"]\n')
    home.provisioner("greet", TOML + 'builder_checks = ["test_greet.py"]\n')
    assert step(home.steps(), "greet").builder_checks == ("test_greet.py",)
    before = step(home.steps(), "greet").digest
    home.provisioner("greet", TOML)
    assert step(home.steps(), "greet").digest == before, "checks make no other image"
    home.provisioner("greet", TOML + 'builder_checks = ["test_gone.py"]\n')
    at = "provisioners/greet/provisioner.toml:2"
    assert home.told() == [f"{at}: builder_checks[0]: there is no test_gone.py beside it"]


def test_an_empty_folder_lacks_everything(home: Home) -> None:
    home.uses('steps = ["greet"]\n')
    (home.path / "provisioners/greet").mkdir(parents=True)
    assert [line.partition(": ")[0] for line in home.told()] == [
        "provisioners/greet/provisioner.toml",
        "provisioners/greet/run.sh",
        "provisioners/greet/test_greet.py",
    ]


def test_a_folder_with_a_wrong_name_is_told(home: Home) -> None:
    home.write("provisioners/Greet_it/provisioner.toml", TOML)
    home.uses('steps = ["greet-it"]\n')
    assert "there is no provisioner called greet-it; did you mean Greet_it?" in home.told()[0]


def test_provisioners_that_are_not_used_are_not_looked_at(home: Home) -> None:
    home.uses('steps = ["os"]\n')
    home.write("provisioners/broken/provisioner.toml", "no toml\n")
    assert set(home.library().provisioners) == {"ssm-agent", "os", "seal"}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("many = 11", "params.greet.many: must be at most 10"),
        ("many = 0", "params.greet.many: must be at least 1"),
        ('many = "5"', "params.greet.many: must be a whole number"),
        ("many = true", "params.greet.many: must be a whole number"),
        ("loud = 1", "params.greet.loud: must be true or false"),
        ("who = 1", "params.greet.who: must be a string"),
        ('who = "youu"', "'youu' is not one of you, me; did you mean you?"),
        ('words = "a"', "params.greet.words: must be a list of strings"),
        ('words = ["a b"]', "has the item 'a b', and items can't hold white space"),
        ('words = [""]', "has the item '', and items can't hold white space"),
        ('lines = "a"', "params.greet.lines: must be a list of strings"),
        ('lines = ["a", ""]', "params.greet.lines: has an empty item"),
        ('lines = ["a\\nb"]', "params.greet.lines: must be one line"),
        ("mani = 1", "greet has no parameter mani; did you mean many?"),
        ("zzz = 1", "greet has no parameter zzz"),
    ],
)
def test_a_parameter_that_does_not_fit_is_told_in_the_recipe(
    home: Home, given: str, problem: str
) -> None:
    greet_with_parameters(home)
    home.uses(f'steps = ["greet"]\n[provision.params.greet]\nname = "x"\n{given}\n')
    (found,) = home.told()
    assert found.startswith("amibuild.toml:7: provision.params.greet.")
    assert problem in found


def test_a_parameter_without_default_must_be_given(home: Home) -> None:
    greet_with_parameters(home)
    home.uses('steps = ["greet"]\n')
    assert home.told() == ["amibuild.toml:3: provision.params.greet.name: is missing: A name."]


def test_a_step_that_is_itself_misspelt_is_not_suggested(home: Home) -> None:
    home.uses('steps = ["oss"]\n[provision.params.os]\nx = 1\n')
    assert home.told()[1:] == [
        "amibuild.toml:5: provision.params.os: os is not a step of this recipe;"
        ' add "os" to provision.steps'
    ]


def test_parameters_of_a_step_that_is_not_there_are_told(home: Home) -> None:
    home.uses('steps = ["os"]\n[provision.params.oss]\nx = 1\n')
    assert home.told() == [
        "amibuild.toml:5: provision.params.oss: oss is not a step of this recipe; did you mean os?"
    ]


def test_parameters_of_the_agent_may_be_given(home: Home) -> None:
    home.uses('steps = []\n[provision.params.ssm-agent]\nversion = "9.9"\n')
    assert step(home.steps(), "ssm-agent").environment["PARAM_VERSION"] == "9.9"


AFTER: Mapping[str, tuple[str, str]] = {
    "it is not there": ('steps = ["greet"]', 'greet needs os before it; add "os" to'),
    "it comes later": ('steps = ["greet", "os"]', "greet needs os before it; move os up"),
}


@pytest.mark.parametrize(("uses", "problem"), AFTER.values(), ids=AFTER.keys())
def test_a_step_stands_after_what_it_needs(home: Home, uses: str, problem: str) -> None:
    home.provisioner("greet", TOML + 'after = ["os"]\n')
    home.uses(uses + "\n")
    (found,) = home.told()
    assert problem in found


def test_a_step_that_stands_right_is_no_mistake(home: Home) -> None:
    home.provisioner("greet", TOML + 'after = ["os", "ssm-agent"]\n')
    home.uses('steps = ["os", "greet"]\n')
    assert [s.name for s in home.steps()] == ["ssm-agent", "os", "greet", "seal"]


def test_needing_something_unknown_is_told(home: Home) -> None:
    home.provisioner("greet", TOML + 'after = ["oss"]\n')
    home.uses('steps = ["greet"]\n')
    (found,) = home.told()
    assert found.endswith(
        "greet needs oss before it, as its provisioner.toml says in `after`, and there is no such"
        " step; did you mean os?"
    )


def test_a_circle_of_needs_is_told_as_one(home: Home) -> None:
    for name, needs in (("a", "c"), ("b", "a"), ("c", "b")):
        home.provisioner(name, TOML + f'after = ["{needs}"]\n')
    home.uses('steps = ["a", "b", "c"]\n')
    (found,) = home.told()
    assert found.endswith("a needs c needs b needs a: none of them can be the first")


def test_mistakes_of_recipe_and_library_are_told_together(home: Home) -> None:
    home.uses('steps = ["oss"]\n[builder]\nvolum_gib = 3\n')
    with pytest.raises(RecipeError) as raised:
        load_project_parts(home.recipe)
    assert [p.key for p in raised.value.problems] == ["provision.steps[0]", "builder.volum_gib"]


def test_a_recipe_that_is_no_toml_is_told_once(home: Home) -> None:
    home.recipe.write_text("[image\n")
    with pytest.raises(RecipeError) as raised:
        load_project_parts(home.recipe)
    assert len(raised.value.problems) == 1


def test_a_right_recipe_comes_with_its_library(home: Home) -> None:
    home.uses('steps = ["os"]\n')
    recipe, library = load_project_parts(home.recipe)
    assert set(library.provisioners) == {"ssm-agent", "os", "seal"}
    assert recipe.provision.steps == ("os",)


def test_user_data_is_the_agents_own_script_with_its_parameters(home: Home) -> None:
    home.uses('steps = []\n[provision.params.ssm-agent]\nurl = "https://x/{region}/a b"\n')
    steps = home.steps()
    data = bootstrap_user_data(steps, "eu-west-1", LEASE)
    lines = data.decode().splitlines()
    script = step(steps, "ssm-agent").files[0].content.decode()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "export PARAM_URL='https://x/{region}/a b'" in lines
    assert "export REGION=eu-west-1" in lines
    assert data.decode().startswith(lease_user_data(LEASE).decode()), "before what may take long"
    assert data.decode().endswith(script.partition("\n")[2])
    assert len(data) <= LIMIT_BYTES


def test_without_an_agents_step_user_data_begins_the_lease() -> None:
    assert bootstrap_user_data((), "us-east-1", LEASE) == lease_user_data(LEASE)


def test_the_hygiene_rules_are_the_bundled_ones() -> None:
    parts = hygiene_rules()
    assert parts[0].path == "hygiene.py"
    for part in parts:
        assert part.content == (bundled_provisioners() / "seal" / part.path).read_bytes()


@pytest.mark.parametrize("schema", [provisioner_schema(), service_schema()], ids=["p", "s"])
def test_every_field_of_the_files_has_a_description(schema: dict[str, dict[str, object]]) -> None:
    tables = [schema, *schema["$defs"].values()]
    fields = [f for table in tables if isinstance(table, dict) for f in _properties(table)]
    assert len(fields) > 8
    assert all(field.get("description") for field in fields)


def _properties(table: dict[str, object]) -> list[dict[str, object]]:
    found = table.get("properties", {})
    assert isinstance(found, dict)
    return list(found.values())


def greet_with_parameters(home: Home) -> None:
    home.provisioner(
        "greet",
        """\
        purpose = "Says hello."
        [parameters.name]
        type = "string"
        description = "A name."
        [parameters.who]
        type = "string"
        choices = ["you", "me"]
        default = "you"
        description = "Whom."
        [parameters.many]
        type = "integer"
        minimum = 1
        maximum = 10
        default = 3
        description = "How often."
        [parameters.loud]
        type = "boolean"
        default = false
        description = "How."
        [parameters.words]
        type = "list"
        default = []
        description = "With what."
        [parameters.lines]
        type = "lines"
        default = []
        description = "With which lines."
        """,
    )
