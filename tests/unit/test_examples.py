"""Every example can be planned, and holds what is known of its titles."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest

import amibuild
from amibuild import proc
from amibuild.cli.start import Example
from amibuild.library.artifact import not_pinned
from amibuild.library.step import BuildStep, StepKind
from amibuild.plan import SourceImage, make_plan
from amibuild.project import Project, load_project

EXAMPLES = Path(amibuild.__file__).parent / "examples"
RECIPES = sorted([EXAMPLES / "starter.toml", *EXAMPLES.glob("*/amibuild.toml")])
SOURCE = SourceImage(
    id="ami-00000000000000001",
    name="debian-13",
    owner="136693071363",
    reference="ssm",
    created=datetime(2026, 11, 22, tzinfo=UTC),
    architecture="x86_64",
    root_device="/dev/xvda",
    size_gib=8,
)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_every_example_is_planned(recipe: Path) -> None:
    plan = make_plan(load_project(recipe), SOURCE)
    assert len(plan.digest) == 64


def test_init_offers_every_example() -> None:
    assert set(Example) == {recipe.parent.name for recipe in EXAMPLES.glob("*/amibuild.toml")}


@pytest.fixture(scope="module")
def project() -> Project:
    return load_project(EXAMPLES / "game-titles/amibuild.toml")


@pytest.fixture(scope="module")
def titles(project: Project) -> dict[str, BuildStep]:
    return {step.name: step for step in project.steps if step.kind is StepKind.SERVICE}


def ports(step: BuildStep, *, public: bool = True) -> set[str]:
    found = [p for p in step.facts["ports"] if p["public"] == public]
    return {f"{p['port']}/{p['protocol']}" for p in found}


def file(step: BuildStep, path: str) -> str:
    (found,) = [f.content.decode() for f in step.files if f.path == path]
    return found


def test_each_title_listens_where_its_players_look(titles: dict[str, BuildStep]) -> None:
    assert {name: ports(step) for name, step in titles.items()} == {
        "ksp-dmp": {"6702/tcp", "6702/udp"},
        "factorio": {"34197/udp"},
        "pa-titans": {"20545/tcp"},
        "satisfactory": {"7777/tcp", "7777/udp"},
        "satisfactory-experimental": {"7778/tcp", "7778/udp"},
    }


def test_what_is_not_pinned_is_named(project: Project) -> None:
    assert [told.partition(":")[0] for told in not_pinned(project.steps)] == [
        "ksp-dmp",
        "factorio",
        "pa-titans",
    ]


def test_kerbals_stop_by_a_line_and_bind_what_they_say(titles: dict[str, BuildStep]) -> None:
    ksp = titles["ksp-dmp"]
    unit = file(ksp, "units/ksp-dmp.service")
    assert "stop-by-line /run/svc-ksp-dmp/stdin /exit" in unit
    assert "AF_NETLINK" in unit, "Mono"
    settings = file(ksp, "config/Settings.txt").splitlines()
    assert [line for line in settings if not line.startswith("#")] == [
        "address=0.0.0.0",
        "supportIpv6=False",
        "port=6702",
        "httpPort=6703",
    ]
    assert ports(ksp, public=False) == {"6703/tcp"}
    assert "6703" not in file(ksp, "firewall.nft")


def test_factorio_writes_where_it_may(titles: dict[str, BuildStep]) -> None:
    config = file(titles["factorio"], "config/config.ini").splitlines()
    assert "read-data=/opt/svc-factorio/data" in config
    assert "write-data=/var/lib/svc-factorio" in config


def test_the_experimental_one_is_the_same_title_elsewhere(titles: dict[str, BuildStep]) -> None:
    stable, other = titles["satisfactory"], titles["satisfactory-experimental"]
    assert (stable.environment["STEAM_APP"], other.environment["STEAM_APP"]) == ("1690800",) * 2
    assert stable.environment["STEAM_BRANCH"] == "public"
    assert other.environment["STEAM_BRANCH"] == "experimental"
    unit = file(stable, "units/satisfactory.service")
    swapped = (
        unit.replace("svc-satisfactory", "svc-satisfactory-experimental")
        .replace("7777", "7778")
        .replace("Description=Satisfactory", "Description=Satisfactory, the experimental branch")
        .replace("satisfactory-data", "satisfactory-experimental-data")
        .replace("data-volume satisfactory", "data-volume satisfactory-experimental")
    )
    assert file(other, "units/satisfactory-experimental.service") == swapped


def shell_of(step: BuildStep, folder: Path) -> list[str]:
    """The script that its unit runs, with the machine's folders below `folder`."""
    (line,) = [
        u for u in file(step, f"units/{step.name}.service").splitlines() if "ExecStart=" in u
    ]
    words = shlex.split(line.removeprefix("ExecStart="))
    script = words[2].replace("$$", "$").replace("%%", "%")
    for root in ("/opt/", "/etc/svc", "/usr/bin/mono"):
        script = script.replace(root, f"{folder}{root}")
    return ["sh", words[1], script]


def program(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/bin/sh\necho "$(readlink -f "$0") $*"\n')
    path.chmod(0o755)


def test_satisfactory_runs_from_a_tree_that_it_may_write_to(
    titles: dict[str, BuildStep], tmp_path: Path
) -> None:
    install, state = tmp_path / "opt/svc-satisfactory", tmp_path / "state"
    name = "Engine/Binaries/Linux/FactoryServer-Linux-Shipping"
    program(install / name)
    (install / "FactoryGame").mkdir()
    (install / "FactoryGame/data.pak").write_text("pak")
    state.mkdir()
    script = shell_of(titles["satisfactory"], tmp_path)
    for _ in ("the first start", "and one after it"):
        ran = proc.run(script, cwd=state).text.split()
        assert ran[0] == str(state / "server" / name), "the program's own place, not root's"
        assert ran[-1] == "-Port=7777"
        (state / "server/FactoryGame/Saved").mkdir(exist_ok=True)
    assert (state / "server/FactoryGame/data.pak").is_symlink()


def test_kerbals_run_from_a_copy_with_our_settings(
    titles: dict[str, BuildStep], tmp_path: Path
) -> None:
    install, state = tmp_path / "opt/svc-ksp-dmp", tmp_path / "state"
    install.mkdir(parents=True)
    state.mkdir()
    (install / "DMPServer.exe").write_text("one version")
    config = tmp_path / "etc/svc-ksp-dmp"
    config.mkdir(parents=True)
    (config / "Settings.txt").write_text("ours")
    program(tmp_path / "usr/bin/mono")
    script = shell_of(titles["ksp-dmp"], tmp_path)
    for version in ("one version", "another version"):
        (install / "DMPServer.exe").write_text(version)
        assert proc.run(script, cwd=state).text.endswith("mono DMPServer.exe\n")
        assert (state / "DMPServer.exe").read_text() == version
        (state / "Config/Settings.txt").write_text("as the server rewrote them")
    proc.run(script, cwd=state)
    assert (state / "Config/Settings.txt").read_text() == "ours"
