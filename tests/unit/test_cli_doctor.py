"""The doctor names what is missing and the one command for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from amibuild.cli.doctor import (
    PACKAGES,
    Ability,
    can_bake,
    doctor_json,
    doctor_text,
    install_command,
    missing_packages,
)

SETUP = Path(__file__).parents[2] / ".ci" / "setup"
WELL = [Ability(name, "x") for name in ("endpoint", "base", "nspawn", "qemu")]


def lacking(name: str) -> list[Ability]:
    return [Ability(a.name, a.use, ("it is not there",) if a.name == name else ()) for a in WELL]


def test_setup_installs_what_the_doctor_asks_for() -> None:
    found = re.search(r'^packages="([^"]+)"', SETUP.read_text(), re.MULTILINE)
    assert found is not None
    # python3-venv is for the virtual environment, in which the doctor already runs.
    assert set(found[1].split()) - {"python3-venv"} == set(PACKAGES)


def test_a_host_without_nspawn_can_still_bake() -> None:
    assert can_bake(lacking("nspawn"))


@pytest.mark.parametrize("name", ["endpoint", "base", "qemu"])
def test_a_host_without_the_rest_can_not(name: str) -> None:
    assert not can_bake(lacking(name))


def test_the_report_gives_the_reason_and_the_command_last() -> None:
    text = doctor_text(lacking("qemu"), install_command(["ovmf", "mtools"]))
    assert "qemu      no   x\n               - it is not there" in text
    assert text.endswith("\n\nsudo apt-get install --no-install-recommends ovmf mtools")


def test_a_host_that_has_everything_needs_no_command() -> None:
    assert install_command([]) is None
    body = doctor_json(WELL, [], None, True)
    assert body["packages"] == {"missing": [], "install": None}


def test_a_program_that_is_not_in_the_path_means_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(PACKAGES, "no-such-package", "no-such-program")
    monkeypatch.setitem(PACKAGES, "no-such-files", "/no/such/file")
    assert {"no-such-package", "no-such-files"} <= set(missing_packages())
