"""`amibuild doctor`: what this host can do, and the one command that installs what it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from amibuild.cli.options import JsonOption
from amibuild.cli.session import session

# Debian package -> what it is needed for, as a program or a file. `.ci/setup` installs the same.
PACKAGES = {
    "arch-test": "arch-test",
    "debian-archive-keyring": "/usr/share/keyrings/debian-archive-keyring.gpg",
    "dosfstools": "mkfs.vfat",
    "e2fsprogs": "mke2fs",
    "fdisk": "sfdisk",
    "grub-common": "grub-mkimage",
    "grub-efi-amd64-bin": "/usr/lib/grub/x86_64-efi",
    "iproute2": "ip",
    "mmdebstrap": "mmdebstrap",
    "mtools": "mcopy",
    "ovmf": "/usr/share/OVMF",
    "qemu-system-x86": "qemu-system-x86_64",
    "qemu-utils": "qemu-img",
    "slirp4netns": "slirp4netns",
    "systemd-container": "systemd-nspawn",
    "uidmap": "newuidmap",
    "util-linux": "unshare",
}


@dataclass(frozen=True)
class Ability:
    """Something that the host can do, or why it can't."""

    name: str
    use: str
    missing: tuple[str, ...] = ()

    @property
    def works(self) -> bool:
        return not self.missing


def doctor(context: typer.Context, as_json: JsonOption = False) -> None:
    """Say what this host can do, what is missing, and how to install it."""
    with session(context, as_json=as_json) as run:
        from amibuild.errors import HostError

        found, packages = abilities(), missing_packages()
        install = install_command(packages)
        able = can_bake(found)
        run.result(doctor_text(found, install), doctor_json(found, packages, install, able))
        if not able:
            raise HostError("this host can't bake with --target local", hint=install)


def abilities() -> list[Ability]:
    from importlib.util import find_spec

    from amibuild.endpoint import data_dir
    from amibuild.errors import HostError
    from amibuild.local import private
    from amibuild.local.machines import drivers
    from amibuild.local.machines.base import Driver

    machines = drivers(data_dir() / "local")
    endpoint = () if find_spec("moto") else ("the Python extra `local` is not installed",)
    try:
        private.check()
        namespaces: tuple[str, ...] = ()
    except HostError as error:
        namespaces = (error.message,)
    makers = ("mmdebstrap", "grub-mkimage", "mke2fs", "mkfs.vfat", "mcopy", "sfdisk")
    return [
        Ability("endpoint", "EC2, SSM and S3 on this machine", endpoint),
        Ability("base", "makes the base image", (*namespaces, *_not_there(makers))),
        Ability("nspawn", "builds in a second", machines[Driver.NSPAWN].missing()),
        Ability("qemu", "boots the finished image", machines[Driver.QEMU].missing()),
    ]


def can_bake(found: list[Ability]) -> bool:
    """nspawn is a comfort: QEMU can build too, only slower."""
    return all(ability.works for ability in found if ability.name != "nspawn")


def missing_packages() -> list[str]:
    return [package for package, needed in PACKAGES.items() if _not_there([needed])]


def _not_there(needed: tuple[str, ...] | list[str]) -> list[str]:
    from amibuild import proc

    return [
        f"{one} is not there"
        for one in needed
        if not (Path(one).exists() if one.startswith("/") else proc.which(one))
    ]


def install_command(packages: list[str]) -> str | None:
    if not packages:
        return None
    return f"sudo apt-get install --no-install-recommends {' '.join(packages)}"


def doctor_text(found: list[Ability], install: str | None) -> str:
    from amibuild.cli.table import columns

    rows = []
    for ability in found:
        rows.append((ability.name, "yes" if ability.works else "no", ability.use))
        rows += [("", "", f"- {reason.splitlines()[0]}") for reason in ability.missing]
    return columns(rows) + (f"\n\n{install}" if install else "")


def doctor_json(
    found: list[Ability], packages: list[str], install: str | None, able: bool
) -> dict[str, Any]:
    return {
        "can_bake_locally": able,
        "abilities": {a.name: {"works": a.works, "missing": list(a.missing)} for a in found},
        "packages": {"missing": packages, "install": install},
    }
