"""What a parameter may be, and what it becomes: the image's name in it, and files it pins."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from amibuild.errors import RecipeError
from amibuild.library.folder import read_provisioner
from amibuild.library.load import bundled_provisioners, load_project_parts
from amibuild.library.provisioner import Parameter, ParameterType, Provisioner, compile_provisioner

PIN = "5e" * 32
URL = "https://example.org/agents/1.2/agent.deb"


def provisioner(**parameters: Parameter) -> Provisioner:
    return Provisioner("tool", "A tool.", 60, "true", parameters=parameters)


def parameter(type_: ParameterType, default: str | tuple[str, ...] | None = None) -> Parameter:
    return Parameter(type=type_, description="x", default=default)


AGENT = provisioner(agent=parameter(ParameterType.ARTIFACT, ""))


def test_the_images_name_stands_where_a_string_asks_for_it() -> None:
    tool = provisioner(
        group=parameter(ParameterType.STRING, "/{image}/system"),
        groups=parameter(ParameterType.LIST, ("/{image}/a", "{version}")),
    )
    step = compile_provisioner(tool, {}, "game-host")
    assert dict(step.environment) == {
        "PARAM_GROUP": "/game-host/system",
        "PARAM_GROUPS": "/game-host/a {version}",
    }
    assert step.facts["parameters"]["group"] == "/game-host/system"


def test_a_pinned_file_travels_as_an_artifact_and_run_sh_is_told_its_place() -> None:
    step = compile_provisioner(AGENT, {"agent": f"{URL}#sha256={PIN}"})
    assert [(s.url, s.name, s.sha256) for s in step.sources] == [(URL, "agent.deb", PIN)]
    assert step.environment["PARAM_AGENT"] == "agent/agent.deb"
    assert "artifacts/artifacts.sh" in [file.path for file in step.files]


def test_no_file_brings_nothing() -> None:
    step = compile_provisioner(AGENT, {})
    assert (step.sources, step.files, step.environment["PARAM_AGENT"]) == ((), (), "")


def test_the_same_file_from_elsewhere_makes_the_same_image() -> None:
    def digest(value: str) -> str:
        return compile_provisioner(AGENT, {"agent": value}).digest

    assert digest(f"{URL}#sha256={PIN}") == digest(f"s3://bucket/agent.deb#sha256={PIN}")
    assert digest(f"{URL}#sha256={PIN}") != digest(f"{URL}#sha256={'a1' * 32}")
    assert digest(f"{URL}#sha256={PIN}") != digest("")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (URL, f"sha256 is missing, and nothing is installed without a checksum; `amibuild "
         f"artifacts pin {URL}` prints it"),
        (f"{URL}#sha256=abc", "sha256 'abc' is not 64 digits of 0-9 and a-f; `amibuild artifacts "
         f"pin {URL}` prints it"),
        (f"http://example.org/a.deb#sha256={PIN}", "url 'http://example.org/a.deb' must be https"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_pinned_is_refused(value: str, problem: str) -> None:
    assert parameter(ParameterType.ARTIFACT).refuse(value) == (problem, None)


def test_a_provisioner_that_would_not_install_it_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "tool"
    folder.mkdir()
    (folder / "provisioner.toml").write_text(
        'purpose = "A tool."\n[parameters.agent]\ntype = "artifact"\ndefault = ""\n'
        'description = "x"\n'
    )
    (folder / "run.sh").write_text("#!/usr/bin/env bash\nset -euo pipefail\n")
    (folder / "test_tool.py").write_text("")
    (problem,) = read_provisioner(folder).problems
    assert problem.problem.startswith("never runs `bash artifacts/artifacts.sh FOLDER`")


WORD = {"pattern": "[a-z]+", "expected": "a word, such as game"}


@pytest.mark.parametrize(
    ("type_", "value", "problem"),
    [
        (ParameterType.STRING, "game", None),
        (ParameterType.STRING, "game 1", "'game 1' is not a word, such as game"),
        (ParameterType.STRING, "", "'' is not a word, such as game"),
        (ParameterType.LIST, (), None),
        (ParameterType.LIST, ("a", "b"), None),
        (ParameterType.LIST, ("a", "b1"), "'b1' is not a word, such as game"),
        (ParameterType.LINES, ("a", "b c"), "'b c' is not a word, such as game"),
        (ParameterType.LIST, ("{image}",), None),
    ],
)
def test_a_pattern_holds_for_a_whole_string_and_for_each_item(
    type_: ParameterType, value: str | tuple[str, ...], problem: str | None
) -> None:
    wanted = Parameter.model_validate({"type": type_, "description": "x", **WORD})
    assert wanted.refuse(value) == (problem and (problem, None))


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ("1", None),
        ("10", None),
        ("0", "'0' must be at least 1"),
        ("11", "'11' must be at most 10"),
        ("http", "'http' is not a whole number"),
        ("+5", "'+5' is not a whole number"),
        ("010", "'010' is not a whole number"),
        ("9" * 5000, f"'{'9' * 5000}' is not a whole number"),
    ],
)
def test_a_list_with_limits_has_numbers(item: str, problem: str | None) -> None:
    numbers = Parameter(type=ParameterType.LIST, description="x", minimum=1, maximum=10)
    assert numbers.refuse(("5", item)) == (problem and (problem, None))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"type": "integer", **WORD}, "a pattern is for string, list, lines, and this is integer"),
        ({"type": "string", "pattern": "[a-z]+"}, "a pattern needs `expected`, which says"),
        ({"type": "string", **WORD, "pattern": "[a-z"}, "is no regular expression: "),
        ({"type": "string", **WORD, "default": "A"}, "'A' is not a word, such as game"),
    ],
)
def test_a_pattern_that_can_not_be_one_is_told(given: dict[str, str], problem: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(problem)):
        Parameter.model_validate({"description": "x", **given})


def test_a_pattern_is_no_part_of_the_image() -> None:
    plain = parameter(ParameterType.STRING, "game")
    strict = plain.model_copy(update=WORD)
    digests = {compile_provisioner(provisioner(a=one), {}).digest for one in (plain, strict)}
    assert len(digests) == 1


PATHS = ("sandbox", "bin/sandbox", "/opt/*", "/opt/a?", "/opt/[ab]", "/opt/{a,b}", "/opt/../etc")
NOT_FIT = [
    *(("hardening", name, port) for name in ("open_tcp", "open_udp")
      for port in ("http", "0", "65536", "-1", "80/tcp", "8000-8010")),
    *(("hardening", "setuid_programs", path) for path in (*PATHS, "/", "/opt/a/")),
    *(("hardening", "open_units", name) for name in
      ("game", "*.service", "game.services", "a/b.service", "game.socket", ".service")),
    *(("hardening", "shell_accounts", name) for name in ("Backup", "1st", "*")),
    *(("hardening", "unneeded_packages", name) for name in ("Exim", "-x", "python*")),
    *(("seal", "known_public", path) for path in (*PATHS, "/", "//", "/opt//a", "/.", "/opt/..")),
    *(("os", "unneeded_units", name) for name in ("man-db", "*.timer")),
    ("os", "timezone", "../etc/passwd"),
    ("os", "locale", "de_DE/UTF-8"),
    ("logging", "log_group", "a b"),
    ("logging", "units", "ssh"),
    ("idle-stop", "maintenance", "at night"),
    ("ssm-agent", "sha256", "5E" * 32),
]  # fmt: skip


@pytest.mark.parametrize(("step", "name", "value"), NOT_FIT)
def test_what_a_bundled_step_could_not_use_is_refused_before_a_bake(
    tmp_path: Path, step: str, name: str, value: str
) -> None:
    given = value if name in ("timezone", "locale", "log_group", "sha256") else [value]
    recipe = tmp_path / "amibuild.toml"
    steps = ["os", "logging", "hardening", "idle-stop"]
    recipe.write_text(
        f'[image]\nname = "game-host"\n[provision]\nsteps = {json.dumps(steps)}\n'
        f"[provision.params.{step}]\n{name} = {json.dumps(given)}\n"
    )
    with pytest.raises(RecipeError) as raised:
        load_project_parts(recipe)
    (problem,) = raised.value.problems
    assert (problem.line, problem.key) == (6, f"provision.params.{step}.{name}")
    assert problem.problem.startswith(repr(value))
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("step", "name", "values"),
    [
        ("hardening", "open_tcp", ("1", "80", "65535")),
        ("hardening", "setuid_programs", ("/opt/{image}/bin/sand-box_2.1+x", "/a")),
        ("hardening", "open_units", ("game@1.service", r"dev-a\x2db.service", "a.b_c:d.service")),
        ("hardening", "shell_accounts", ("backup", "_apt", "systemd-network")),
        ("seal", "known_public", ("/opt/a b/", "/opt/{image}/tests", "/.hidden/..a/key.pem")),
        ("os", "time_servers", ("2001:db8::1", "time.example.org", "10.0.0.1")),
        ("idle-stop", "maintenance", ("02:00-04:00", "monday,FRIDAY 02:00 - 04:00 UTC")),
    ],
)
def test_what_a_bundled_step_can_use_is_taken(
    step: str, name: str, values: tuple[str, ...]
) -> None:
    found = read_provisioner(bundled_provisioners() / step).value
    assert found is not None
    assert found.parameters[name].refuse(values) is None
