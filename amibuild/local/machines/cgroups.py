"""A control group of a machine's own, made before nspawn starts and removed when all is over.

nspawn with --keep-unit makes `payload` and `supervisor` below the group that it runs in: two
machines in one group would meet there. The kernel does not remove groups by itself, so the keeper
does, or whoever finds that it was killed (remains.py).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from amibuild.errors import HostError
from amibuild.local.machines.processes import command_line
from amibuild.wait import Look, until

KEEPER = "amibuild.local.machines.supervisor"
_PREFIX = "amibuild-"
FREEZE_S = 10.0


def systemd_groups() -> tuple[Path, ...]:
    """The folders of this process' group in the hierarchies that systemd cares for: v2, and on
    hybrid hosts also v1's name=systemd."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path
    hierarchies = _hierarchies()
    return tuple(Path(point + own[name]) for point, name in hierarchies.items() if name in own)


def _hierarchies() -> dict[str, str]:
    """Where each is mounted in whole, and what /proc/PID/cgroup calls it."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split()[:3]
        name = {"cgroup2": "", "cgroup": "name=systemd"}.get(kind)
        if name is None or (kind == "cgroup" and name not in options.split(",")):
            continue
        if root == "/" and name not in found.values():
            found[point] = name
    return found


def groups_of(instance_id: str, keeper: int) -> tuple[Path, ...]:
    """The groups of a keeper that is, or was, in this process' own group."""
    return tuple(parent / f"{_PREFIX}{instance_id}-{keeper}" for parent in systemd_groups())


def create(instance_id: str) -> tuple[Path, ...]:
    groups = groups_of(instance_id, os.getpid())
    for group in groups:
        group.mkdir()
    return groups


def enter(groups: tuple[Path, ...]) -> None:
    for group in groups:
        (group / "cgroup.procs").write_text("0")


def remove(groups: Iterable[Path]) -> None:
    """Removes them with all below. They must be empty of processes."""
    for group in groups:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(FileNotFoundError):
                Path(folder).rmdir()


@contextlib.contextmanager
def frozen(instance_id: str, keeper: int) -> Iterator[None]:
    """No process of the machine runs meanwhile. They can be killed all the same.

    Raises: HostError without the v2 hierarchy, whose freezer leaves nothing behind that is stuck
    inside the kernel.
    """
    groups = groups_of(instance_id, keeper)
    group = next((g for g in groups if (g / "cgroup.freeze").exists()), None)
    if group is None:
        raise HostError("this host has no control groups (version 2) that could hold a machine")
    try:
        (group / "cgroup.freeze").write_text("1")
        until(lambda: _look(group), what=f"{instance_id} to stand still", timeout_s=FREEZE_S)
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):  # it was killed, and all is removed
            (group / "cgroup.freeze").write_text("0")


def _look(group: Path) -> Look[bool]:
    try:
        said = (group / "cgroup.events").read_text().split()
    except FileNotFoundError as error:
        raise HostError("the machine has ended") from error
    still = said[said.index("frozen") + 1] == "1"
    return Look("frozen" if still else "running", still or None)


def sweep() -> tuple[Path, ...]:
    """Removes the groups of keepers that were killed, wherever in the hierarchies; those."""
    removed = []
    for point in _hierarchies():
        for group in _ours_below(point):
            keeper = group.name.rpartition("-")[2]
            if not keeper.isdigit() or KEEPER in command_line(int(keeper)) or _in_use(group):
                continue
            with contextlib.suppress(OSError):  # another was faster
                remove((group,))
                removed.append(group)
    return tuple(removed)


def _in_use(group: Path) -> bool:
    """A keeper in a container of the host is no process that we see, but its machine's are."""
    try:
        return any((Path(folder) / "cgroup.procs").read_text() for folder, _, _ in os.walk(group))
    except OSError:  # it is just being removed
        return True


def _ours_below(point: str) -> list[Path]:
    found = []
    for folder, names, _ in os.walk(point):
        ours = [name for name in names if name.startswith(f"{_PREFIX}i-")]
        found += [Path(folder, name) for name in ours]
        names[:] = [name for name in names if name not in ours]
    return found
