"""A control group of a machine's own, made before nspawn starts and removed when all is over.

nspawn with --keep-unit makes `payload` and `supervisor` below the group that it runs in: two
machines in one group would meet there. The kernel does not remove groups by itself, so the keeper
does, and each new machine also removes the groups of keepers that were killed.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_PREFIX = "amibuild-"


def systemd_groups() -> tuple[Path, ...]:
    """The folders of this process' group in the hierarchies that systemd cares for: v2, and on
    hybrid hosts also v1's name=systemd."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split()[:3]
        wanted = {"cgroup2": "", "cgroup": "name=systemd"}.get(kind)
        if wanted is None or (kind == "cgroup" and "name=systemd" not in options.split(",")):
            continue
        below = own.get(wanted)
        if below is not None and root == "/":
            found.append(Path(point + below))
    return tuple(dict.fromkeys(found))


def create(instance_id: str) -> tuple[Path, ...]:
    groups = []
    for parent in systemd_groups():
        _sweep(parent)
        group = parent / f"{_PREFIX}{instance_id}-{os.getpid()}"
        group.mkdir()
        groups.append(group)
    return tuple(groups)


def enter(groups: tuple[Path, ...]) -> None:
    for group in groups:
        (group / "cgroup.procs").write_text("0")


def remove(groups: tuple[Path, ...]) -> None:
    """Removes them with all below. They must be empty of processes."""
    for group in groups:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(FileNotFoundError):
                Path(folder).rmdir()


def _sweep(parent: Path) -> None:
    for group in parent.glob(f"{_PREFIX}*"):
        keeper = group.name.rpartition("-")[2]
        if keeper.isdigit() and not Path("/proc", keeper).exists():
            with contextlib.suppress(OSError):  # another sweep was faster, or it is not empty yet
                remove((group,))
