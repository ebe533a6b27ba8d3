"""[artifact] and [steam] in service.toml: what they add to a step, and what is refused."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from amibuild.library.artifact import NOT_PINNED, artifact_parts, not_pinned
from amibuild.library.compile import compile_service
from amibuild.library.folder import read_provisioner, read_service
from amibuild.library.service import Service, ServiceFile
from amibuild.library.step import BuildStep

PIN = "a" * 64
SERVICE = """\
purpose = "A server."
command = ["{install}/bin/server", "--port", "{port.game}"]
memory_mib = 64
[[ports]]
name = "game"
port = 7777
protocol = "udp"
"""


def told(tmp_path: Path, more: str) -> list[str]:
    folder = tmp_path / "game"
    folder.mkdir(exist_ok=True)
    (folder / "service.toml").write_text(SERVICE + dedent(more))
    return [str(p).replace(f"{folder}/service.toml:", "") for p in read_service(folder).problems]


def step(**brings: object) -> BuildStep:
    port = {"name": "game", "port": 7777, "protocol": "udp"}
    base = {"purpose": "x", "command": ("/bin/x",), "ports": (port,), "memory_mib": 64}
    return compile_service(Service("game", ServiceFile.model_validate({**base, **brings})))


def artifact(**fields: object) -> dict[str, object]:
    return {"url": "https://example.org/game.zip", "sha256": PIN, **fields}


def test_a_service_of_artifacts_knows_where_they_are(tmp_path: Path) -> None:
    more = f'[artifact]\nurl = "https://example.org/game.zip"\nsha256 = "{PIN}"\n'
    assert told(tmp_path, more) == []
    service = read_service(tmp_path / "game").value
    assert service is not None
    unit = next(f for f in compile_service(service).files if f.path == "units/game.service")
    assert b"ExecStart=/opt/svc-game/bin/server --port 7777\n" in unit.content


def test_install_stands_for_nothing_without_artifacts(tmp_path: Path) -> None:
    assert told(tmp_path, "") == [
        "2: command[0]: {install} stands for nothing; known are state, config, port.game"
    ]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (
            'url = "https://example.org/a.zip"',
            "8: artifact.sha256: is missing, and nothing is installed without a checksum; "
            "`amibuild artifacts pin https://example.org/a.zip` prints it",
        ),
        (
            'url = "https://example.org/a.zip"\nsha256 = "ABC"',
            "10: artifact.sha256: 'ABC' is not 64 digits of 0-9 and a-f; "
            "`amibuild artifacts pin https://example.org/a.zip` prints it",
        ),
        (
            f'url = "http://example.org/a.zip"\nsha256 = "{PIN}"',
            "9: artifact.url: 'http://example.org/a.zip' must be https",
        ),
        (
            'url = "https://example.org/a.zip?token=SECRET"',
            "8: artifact.sha256: is missing, and nothing is installed without a checksum; "
            "`amibuild artifacts pin https://example.org/a.zip?…` prints it",
        ),
        (
            f'url = "http://example.org/a.zip?token=SECRET"\nsha256 = "{PIN}"',
            "9: artifact.url: 'http://example.org/a.zip' must be https",
        ),
        (
            f'url = "https://me:word@example.org/a.zip"\nsha256 = "{PIN}"',
            "9: artifact.url: must hold no user and password: use a mirror",
        ),
        (
            f'url = "ftp://example.org/a"\nsha256 = "{PIN}"',
            "9: artifact.url: 'ftp://example.org/a' is not https://HOST/PATH, s3://BUCKET/KEY, "
            "file:PATH or file:///PATH",
        ),
        (
            f'url = "file:a.zip"\nsha256 = "{PIN}"\ninto = "../etc"',
            "11: artifact.into: '../etc' is not a folder below the service's own, such as game",
        ),
        (
            f'url = "https://example.org/a%2Fb"\nsha256 = "{PIN}"\ninto = "/etc"',
            "11: artifact.into: '/etc' is not a folder below the service's own, such as game",
        ),
        (
            f'url = "https://example.org/.."\nsha256 = "{PIN}"\nunpack = false',
            "11: artifact.unpack: the address ends in '..', which no file can be called",
        ),
    ],
)
def test_mistakes_are_told_at_their_line(tmp_path: Path, table: str, problem: str) -> None:
    assert told(tmp_path, f"[artifact]\n{table}\n") == [problem]


def test_artifact_and_artifacts_exclude_each_other(tmp_path: Path) -> None:
    one = f'url = "file:a.zip"\nsha256 = "{PIN}"\n'
    found = told(tmp_path, f"[[artifacts]]\n{one}[artifact]\n{one}")
    assert found == [
        "8: artifacts: stands here beside [artifact]: make that one of [[artifacts]] too"
    ]


def test_a_branch_cannot_smuggle_in_another_command(tmp_path: Path) -> None:
    found = told(tmp_path, '[steam]\napp = 1690800\nbranch = "public +quit"\n')
    assert found == ["10: steam.branch: 'public +quit' is not the name of a branch, such as public"]


def test_the_address_is_not_in_the_digest() -> None:
    one = step(artifact=artifact())
    assert step(artifact=artifact(url="s3://bucket/other.zip")).digest == one.digest
    assert step(artifact=artifact(size=5)).digest == one.digest


@pytest.mark.parametrize(
    "other",
    [{"sha256": "b" * 64}, {"into": "game"}, {"strip": 1}, {"unpack": False}],
)
def test_what_makes_the_image_is_in_the_digest(other: dict[str, object]) -> None:
    assert step(artifact=artifact(**other)).digest != step(artifact=artifact()).digest


def test_a_plain_files_name_is_in_the_digest() -> None:
    plain = artifact(unpack=False)
    renamed = artifact(unpack=False, url="https://example.org/other.zip")
    assert step(artifact=plain).digest != step(artifact=renamed).digest


def test_app_and_branch_are_in_the_digest() -> None:
    digests = {
        step(steam={"app": 1}).digest,
        step(steam={"app": 2}).digest,
        step(steam={"app": 1, "branch": "experimental"}).digest,
        step().digest,
    }
    assert len(digests) == 4


def test_a_step_without_artifacts_has_no_trace_of_them() -> None:
    plain = step()
    assert not [f.path for f in plain.files if f.path.startswith("artifacts/")]
    assert "install" not in plain.facts
    assert artifact_parts(()).files == ()


def test_a_placeholder_is_told_by_the_steps_name() -> None:
    steps = (step(artifact=artifact(sha256=NOT_PINNED)), step(artifact=artifact()))
    assert list(not_pinned(steps)) == [
        "game: the checksum of https://example.org/game.zip is a placeholder; "
        "`amibuild artifacts pin https://example.org/game.zip` prints the real one"
    ]


def provisioner(tmp_path: Path, script: str) -> Path:
    folder = tmp_path / "tool"
    folder.mkdir()
    (folder / "provisioner.toml").write_text(
        f'purpose = "A tool."\n[artifact]\nurl = "file:tool.zip"\nsha256 = "{PIN}"\n'
    )
    (folder / "run.sh").write_text(f"#!/usr/bin/env bash\nset -euo pipefail\n{script}\n")
    (folder / "test_tool.py").write_text("")
    return folder


def test_a_provisioner_may_have_artifacts(tmp_path: Path) -> None:
    read = read_provisioner(provisioner(tmp_path, "bash artifacts/artifacts.sh /opt/tool"))
    assert read.problems == ()


def test_a_provisioner_that_forgets_its_artifacts_is_told(tmp_path: Path) -> None:
    read = read_provisioner(provisioner(tmp_path, "true"))
    assert [p.problem for p in read.problems] == [
        "never runs `bash artifacts/artifacts.sh FOLDER`, and its artifacts would not be installed"
    ]
