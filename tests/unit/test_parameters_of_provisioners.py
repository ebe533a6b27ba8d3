"""What a parameter's value becomes: the image's name in it, and files that it pins."""

from __future__ import annotations

from pathlib import Path

import pytest

from amibuild.library.folder import read_provisioner
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
