"""`amibuild doctor`: what this host can do, and the one command that installs what it lacks."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from amibuild.cli.options import JsonOption
from amibuild.cli.session import session

if TYPE_CHECKING:
    from amibuild.local.host import Fault

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
MAKERS = ("mmdebstrap", "grub-mkimage", "mke2fs", "mkfs.vfat", "mcopy", "sfdisk")
# What makes a bake faster, or keeps machines and host further apart. All else, it can't do without.
COMFORTS = frozenset({"nspawn", "kvm", "network"})


@dataclass(frozen=True)
class Ability:
    """Something that the host can do, or why it can't; `mend` are commands that root runs."""

    name: str
    use: str
    missing: tuple[str, ...] = ()
    mend: tuple[str, ...] = ()

    @property
    def works(self) -> bool:
        return not self.missing


@dataclass(frozen=True)
class Report:
    """What was found. `plan` says how a bake here would go, or why there is none."""

    system: str
    abilities: tuple[Ability, ...]
    packages: tuple[str, ...]
    command: str | None
    plan: str
    notes: tuple[str, ...] = ()

    @property
    def able(self) -> bool:
        return can_bake(self.abilities)


def doctor(context: typer.Context, as_json: JsonOption = False) -> None:
    """Say what this host can do, what is missing, and how to install it."""
    with session(context, as_json=as_json) as run:
        from amibuild.errors import HostError

        report = examine()
        run.result(doctor_text(report), doctor_json(report))
        if not report.able:
            raise HostError("this host can't bake with --target local", hint=report.command)


def examine() -> Report:
    from amibuild.local import host

    found, packages = abilities(), tuple(missing_packages())
    return Report(
        system=host.system(),
        abilities=found,
        packages=packages,
        command=mending_command(packages if host.has_apt() else (), found, root=_is_root()),
        plan=plan(found),
        notes=notes(packages, debian=host.is_debian(), apt=host.has_apt(), platform=sys.platform),
    )


def abilities() -> tuple[Ability, ...]:
    from importlib.util import find_spec

    from amibuild.endpoint import data_dir
    from amibuild.local import host
    from amibuild.local.machines import drivers
    from amibuild.local.machines.base import Driver

    data, user = data_dir(), host.this_user()
    machines = drivers(data / "local")
    endpoint = () if find_spec("moto") else ("the Python extra `local` is not installed",)
    free, memory = host.disk_free_gib(data), host.memory_gib()
    other = host.architecture_faults()
    return (
        Ability("endpoint", "EC2, SSM and S3 on this machine", endpoint),
        _lacking("base", "makes the base image", [*other, *_namespaces(user)], _not_there(MAKERS)),
        _lacking("nspawn", "builds in a second", other, machines[Driver.NSPAWN].missing()),
        _lacking("qemu", "boots the finished image", (), machines[Driver.QEMU].missing()),
        _kvm(data / "local"),
        _network(),
        _lacking("disk", f"{free:.0f} GiB free for {data}", host.disk_faults(data)),
        _lacking(
            "memory",
            f"{memory:.1f} GiB available" if memory is not None else "not told",
            host.memory_faults(),
        ),
    )


def _lacking(
    name: str, use: str, faults: list[Fault] | tuple[Fault, ...], more: tuple[str, ...] = ()
) -> Ability:
    mend = tuple(fault.mend for fault in faults if fault.mend)
    return Ability(name, use, (*(fault.reason for fault in faults), *more), mend)


def _namespaces(user: Any) -> list[Fault]:
    """What is seen to be wrong, else what is said when it is tried."""
    from amibuild.errors import HostError
    from amibuild.local import host, private

    found = list(host.namespace_faults(user))
    if not found:
        try:
            private.check()
        except HostError as error:
            found.append(host.Fault(error.message))
    return found


def _kvm(local: Path) -> Ability:
    """Tried with the base image's kernel, where there is one: /dev/kvm alone says little."""
    from amibuild.local import host
    from amibuild.local.machines.accelerator import Acceleration, Accelerator

    use = "boots it at the speed of this machine"
    candidate = Acceleration.candidate()
    if candidate is Accelerator.TCG:
        return _lacking("kvm", use, host.kvm_faults(host.this_user()))
    disk = next(iter(sorted((local / "base").glob("debian-*.raw"))), None)
    if disk is None:
        why = "not tried yet: the first bake does, with the kernel of the base image"
        return Ability(candidate.value, use, (why,))
    if Acceleration(local / "host.json")(disk) is Accelerator.TCG:
        why = "it is there, but no kernel boots under it"
        return Ability(candidate.value, use, (why,))
    return Ability(candidate.value, use)


def _network() -> Ability:
    """Without root: whether machines get a network namespace, or share the host's."""
    from amibuild.local import host

    use = "keeps machines off this machine's own ports"
    return _lacking("network", use, host.tun_faults())


def can_bake(found: tuple[Ability, ...]) -> bool:
    """nspawn is a comfort: QEMU can build too, only slower."""
    return all(ability.works for ability in found if not _is_comfort(ability))


def _is_comfort(ability: Ability) -> bool:
    return ability.name in COMFORTS or ability.name == "hvf"


def plan(found: tuple[Ability, ...]) -> str:
    """One sentence: what would be used for build and proof."""
    if not can_bake(found):
        return "can't bake with --target local; --target aws needs nothing of this"
    by_name = {ability.name: ability for ability in found}
    fast = by_name.get("kvm") or by_name["hvf"]
    name = fast.name.upper()
    qemu = f"QEMU ({name})" if fast.works else f"QEMU (TCG, no {name}: {fast.missing[0]})"
    if by_name["nspawn"].works:
        return f"builds with nspawn, proves with {qemu}"
    return f"builds and proves with {qemu}"


def notes(packages: tuple[str, ...], *, debian: bool, apt: bool, platform: str) -> tuple[str, ...]:
    """What a person on a host that nobody has tried should know."""
    if platform == "darwin":
        return (
            "macOS: only --target aws is expected to work; machines under HVF have not been tried",
        )
    if debian:
        return ()
    found = ["not Debian: nobody has tried this host; packages are named as in Debian"]
    if packages and not apt:
        found.append(f"install what these are here: {' '.join(packages)}")
    return tuple(found)


def missing_packages() -> list[str]:
    return [package for package, needed in PACKAGES.items() if _not_there([needed])]


def _not_there(needed: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    from amibuild import proc

    return tuple(
        f"{one} is not there"
        for one in needed
        if not (Path(one).exists() if one.startswith("/") else proc.which(one))
    )


def install_command(packages: tuple[str, ...]) -> str | None:
    if not packages:
        return None
    return f"apt-get install --no-install-recommends {' '.join(packages)}"


def mending_command(
    packages: tuple[str, ...], found: tuple[Ability, ...], *, root: bool
) -> str | None:
    """One line for a shell: packages first, then what is to be set."""
    install = install_command(packages)
    parts = [install] if install else []
    parts += [command for ability in found for command in ability.mend]
    if not parts:
        return None
    return " && ".join(part if root else f"sudo {part}" for part in dict.fromkeys(parts))


def _is_root() -> bool:
    import os

    return os.geteuid() == 0


def doctor_text(report: Report) -> str:
    from amibuild.cli.table import columns

    rows = [("host", "", report.system)]
    for ability in report.abilities:
        rows.append((ability.name, "yes" if ability.works else "no", ability.use))
        rows += [("", "", f"- {reason.splitlines()[0]}") for reason in ability.missing]
    text = f"{columns(rows)}\n\n{report.plan}"
    text += "".join(f"\n{note}" for note in report.notes)
    return text + (f"\n\n{report.command}" if report.command else "")


def doctor_json(report: Report) -> dict[str, Any]:
    return {
        "can_bake_locally": report.able,
        "plan": report.plan,
        "host": report.system,
        "notes": list(report.notes),
        "abilities": {
            a.name: {"works": a.works, "use": a.use, "missing": list(a.missing)}
            for a in report.abilities
        },
        "packages": {
            "missing": list(report.packages),
            "install": install_command(report.packages),
        },
        "command": report.command,
    }
