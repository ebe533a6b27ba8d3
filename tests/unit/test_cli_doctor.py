"""The doctor names what is missing and the one command for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from amibuild.cli.doctor import (
    PACKAGES,
    Ability,
    Report,
    can_bake,
    doctor_json,
    doctor_text,
    mending_command,
    missing_packages,
    notes,
    plan,
)

SETUP = Path(__file__).parents[2] / ".ci" / "setup"
NAMES = ("endpoint", "base", "nspawn", "qemu", "kvm", "network", "disk", "memory")
WELL = tuple(Ability(name, "x") for name in NAMES)


def lacking(*names: str) -> tuple[Ability, ...]:
    reason = ("it is not there",)
    return tuple(Ability(a.name, a.use, reason if a.name in names else ()) for a in WELL)


def report(found: tuple[Ability, ...], command: str | None = None) -> Report:
    return Report("Debian", found, (), command, plan(found))


def test_setup_installs_what_the_doctor_asks_for() -> None:
    found = re.search(r'^packages="([^"]+)"', SETUP.read_text(), re.MULTILINE)
    assert found is not None
    # python3-venv is for the virtual environment, in which the doctor already runs.
    assert set(found[1].split()) - {"python3-venv"} == set(PACKAGES)


@pytest.mark.parametrize("name", ["nspawn", "kvm", "network"])
def test_a_host_without_a_comfort_can_still_bake(name: str) -> None:
    assert can_bake(lacking(name))


@pytest.mark.parametrize("name", ["endpoint", "base", "qemu", "disk", "memory"])
def test_a_host_without_the_rest_can_not(name: str) -> None:
    assert not can_bake(lacking(name))
    assert "can't bake" in plan(lacking(name))


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ((), "builds with nspawn, proves with QEMU (KVM)"),
        (("nspawn",), "builds and proves with QEMU (KVM)"),
        (("kvm",), "builds with nspawn, proves with QEMU (TCG, no KVM: it is not there)"),
        (("kvm", "nspawn"), "builds and proves with QEMU (TCG, no KVM: it is not there)"),
    ],
)
def test_one_sentence_says_how_a_bake_would_go(lacks: tuple[str, ...], said: str) -> None:
    assert plan(lacking(*lacks)) == said


def test_the_report_gives_the_reason_and_the_command_last() -> None:
    command = mending_command(("ovmf", "mtools"), (), root=False)
    text = doctor_text(report(lacking("qemu"), command))
    assert "qemu      no   x\n               - it is not there" in text
    assert text.endswith("\n\nsudo apt-get install --no-install-recommends ovmf mtools")


def test_one_command_installs_and_mends_in_that_order() -> None:
    found = (
        Ability("base", "x", ("y",), ("usermod --add-subuids 1-2 me", "modprobe tun")),
        Ability("network", "x", ("y",), ("modprobe tun",)),
    )
    assert mending_command(("uidmap",), found, root=False) == (
        "sudo apt-get install --no-install-recommends uidmap"
        " && sudo usermod --add-subuids 1-2 me && sudo modprobe tun"
    )
    assert mending_command((), found[1:], root=True) == "modprobe tun"


def test_a_host_that_has_everything_needs_no_command() -> None:
    assert mending_command((), WELL, root=False) is None
    body = doctor_json(report(WELL))
    assert body["packages"] == {"missing": [], "install": None}
    assert body["command"] is None
    assert body["can_bake_locally"] is True


def test_hosts_that_nobody_has_tried_are_told_so() -> None:
    assert notes((), debian=True, apt=True, platform="linux") == ()
    (mac,) = notes(("ovmf",), debian=False, apt=False, platform="darwin")
    assert "only --target aws" in mac
    ubuntu = notes(("ovmf",), debian=False, apt=True, platform="linux")
    assert len(ubuntu) == 1
    fedora = notes(("ovmf",), debian=False, apt=False, platform="linux")
    assert fedora[1].endswith("ovmf")


def test_a_program_that_is_not_in_the_path_means_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(PACKAGES, "no-such-package", "no-such-program")
    monkeypatch.setitem(PACKAGES, "no-such-files", "/no/such/file")
    assert {"no-such-package", "no-such-files"} <= set(missing_packages())
