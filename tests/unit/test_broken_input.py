"""What `amibuild plan` says of broken recipes, services and provisioners, letter by letter.

Each golden text has, for one kind, the name of each case and what stderr got: the file, the line,
the place in it, what was expected, what was probably meant. Exit code 2, and nothing was made.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from amibuild import proc
from amibuild.cli.main import app
from tests.conftest import Golden
from tests.unit.broken import cases

KINDS = ("recipes", "services", "provisioners")


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def told(home: Path) -> str:
    """What the plan of a recipe there says, with the folder cut off."""
    before = tree(home)
    done = CliRunner().invoke(app, ["plan", str(home / "amibuild.toml")])
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert tree(home) == before
    return done.stderr.replace(f"{home}/", "")


@pytest.mark.parametrize("kind", KINDS)
def test_each_mistake_is_told_as_in_the_golden_text(
    tmp_path: Path, kind: str, golden: Golden
) -> None:
    parts = []
    for name, make in cases(kind).items():
        home = tmp_path / name
        home.mkdir()
        make(home)
        parts.append(f"== {name}\n{told(home)}")
    assert not (tmp_path / "data").exists(), "an endpoint was started for it"
    golden(f"broken-{kind}.txt", "\n".join(parts))


@pytest.mark.parametrize("kind", KINDS)
def test_no_message_is_pydantics_or_pythons_own(kind: str) -> None:
    text = (Path(__file__).parents[1] / f"golden/broken-{kind}.txt").read_text()
    for foreign in (
        "Traceback",
        "input should",
        "Input should",
        "unable to",
        "<unknown>",
        "NoneType",
    ):
        assert foreign not in text


def test_the_console_script_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "amibuild.toml"
    path.write_text('[image]\nname = "game-host"\n[builder]\nvolum_gib = 12\n')
    done = proc.run([sys.executable, "-m", "amibuild.cli.main", "plan", path], check=False)
    assert done.exit_code == 2
    assert done.stderr.decode().replace(f"{tmp_path}/", "") == (
        "amibuild.toml:4: builder.volum_gib: is not a known key; did you mean volume_gib?\n"
        "     4 | volum_gib = 12\n"
        "       | ^^^^^^^^^\n"
    )
