"""What this host is, as far as it matters to machines, and how what hinders them is mended.

For `amibuild doctor`. Everything is read below `root`, so that tests can show it other hosts.
"""

from __future__ import annotations

import os
import platform
import pwd
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from amibuild import proc

GIB = 1 << 30
ROOT = Path("/")
# Base image, store, builder and proof of a recipe without services took 1.7 GiB at once.
DISK_GIB = 4.0
# The endpoint, and the least that a machine under QEMU installs packages with.
MEMORY_GIB = 1.5
SUBORDINATE_IDS = 65536
FIRST_SUBORDINATE_ID = 100_000
ARCHITECTURE = "x86_64"


@dataclass(frozen=True)
class Fault:
    """What hinders, as a sentence, and the command that root mends it with, where there is one."""

    reason: str
    mend: str | None = None


@dataclass(frozen=True)
class User:
    uid: int
    name: str | None
    """None where the host has no such user."""


def this_user() -> User:
    uid = os.geteuid()
    try:
        return User(uid, pwd.getpwuid(uid).pw_name)
    except KeyError:
        return User(uid, None)


def system() -> str:
    """`Debian GNU/Linux 12 (bookworm)`, or what else it calls itself."""
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    return _release("PRETTY_NAME") or platform.system()


def is_debian(root: Path = ROOT) -> bool:
    """Debian itself: packages have these names on its derivatives too, most of the time."""
    return _release("ID", root) == "debian"


def _release(key: str, root: Path = ROOT) -> str:
    """Source: os-release(5)."""
    for line in _read(root / "etc/os-release").splitlines():
        name, _, value = line.partition("=")
        if name == key:
            return value.strip().strip("\"'")
    return ""


def architecture_faults() -> tuple[Fault, ...]:
    if platform.machine() == ARCHITECTURE:
        return ()
    return (Fault(f"local images are amd64, and this host is {platform.machine()}: not supported"),)


def namespace_faults(user: User, root: Path = ROOT) -> tuple[Fault, ...]:
    """What keeps a user who is not root from having namespaces with a range of ids."""
    if user.uid == 0:
        return ()
    if user.name is None:
        return (Fault(f"the user {user.uid} has no name in /etc/passwd, so no subordinate ids"),)
    found = []
    settings = root / "proc/sys"
    if _read(settings / "user/max_user_namespaces").strip() == "0":
        found.append(
            Fault("user namespaces are switched off", "sysctl -w user.max_user_namespaces=15000")
        )
    # Debian's until 10, and Ubuntu's since 23.10.
    for name, wrong, right in (
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ):
        if _read(settings / name).strip() == wrong:
            key = name.replace("/", ".")
            found.append(
                Fault(f"user namespaces are root's: {key} is {wrong}", f"sysctl -w {key}={right}")
            )
    lacking = [f for f in ("subuid", "subgid") if _range_of(user, root / "etc" / f) is None]
    if lacking:
        first = max(_first_free(root / "etc" / f) for f in ("subuid", "subgid"))
        ids = f"{first}-{first + SUBORDINATE_IDS - 1}"
        options = " ".join(f"--add-{name}s {ids}" for name in lacking)
        where = " and ".join(f"/etc/{name}" for name in lacking)
        found.append(
            Fault(
                f"{user.name} has no {SUBORDINATE_IDS} subordinate ids in {where}",
                f"usermod {options} {user.name}",
            )
        )
    return tuple(found)


def _range_of(user: User, file: Path) -> int | None:
    """The first id of a range that is large enough. Source: subuid(5)."""
    for owner, first, count in _ranges(file):
        if owner in {user.name, str(user.uid)} and count >= SUBORDINATE_IDS:
            return first
    return None


def _first_free(file: Path) -> int:
    return max([FIRST_SUBORDINATE_ID, *(first + count for _, first, count in _ranges(file))])


def _ranges(file: Path) -> list[tuple[str, int, int]]:
    fields = [line.split(":") for line in _read(file).splitlines()]
    return [
        (field[0], int(field[1]), int(field[2]))
        for field in fields
        if len(field) == 3 and field[1].isdigit() and field[2].isdigit()
    ]


def tun_faults(root: Path = ROOT) -> tuple[Fault, ...]:
    """What keeps machines from a network namespace of their own."""
    device = root / "dev/net/tun"
    if not device.exists():
        return (Fault("/dev/net/tun does not exist", "modprobe tun"),)
    if not os.access(device, os.R_OK | os.W_OK):
        # udev makes it so, on Debian and elsewhere; in containers nobody does.
        return (Fault("/dev/net/tun is root's", "chmod 0666 /dev/net/tun"),)
    return ()


def kvm_faults(user: User, root: Path = ROOT) -> tuple[Fault, ...]:
    """What can be told without trying: whether there is one, and whether it may be used."""
    device = root / "dev/kvm"
    if not device.exists():
        return (Fault("/dev/kvm does not exist: switched off in the firmware, or a guest itself"),)
    if os.access(device, os.R_OK | os.W_OK):
        return ()
    facts = device.stat()
    by_group = stat.S_IMODE(facts.st_mode) & 0o060 == 0o060 and facts.st_gid != 0
    if by_group and user.name is not None:
        return (
            Fault(
                "/dev/kvm is for the group kvm (log in anew after joining it)",
                f"usermod --append --groups kvm {user.name}",
            ),
        )
    return (Fault("/dev/kvm is root's"),)


def disk_faults(data: Path) -> tuple[Fault, ...]:
    free = disk_free_gib(data)
    if free >= DISK_GIB:
        return ()
    return (Fault(f"a bake needs {DISK_GIB:g} GiB; AMIBUILD_DATA_DIR may name another disk"),)


def disk_free_gib(data: Path) -> float:
    """Of the disk that the data folder is on, or will be."""
    there = next(folder for folder in (data, *data.parents) if folder.exists())
    return shutil.disk_usage(there).free / GIB


def memory_faults(root: Path = ROOT) -> tuple[Fault, ...]:
    available = memory_gib(root)
    if available is None or available >= MEMORY_GIB:
        return ()
    return (Fault(f"a bake needs {MEMORY_GIB:g} GiB"),)


def memory_gib(root: Path = ROOT) -> float | None:
    """What programs can have without swapping; None where the system does not say."""
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 / GIB
    return None


def has_apt() -> bool:
    return proc.which("apt-get") is not None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
