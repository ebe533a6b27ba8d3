"""What a killed supervisor can leave of its machine, and how it goes.

The kernel ends processes, mounts and interfaces with the supervisor's namespaces, some of it a
moment later. Control groups it leaves alone. The supervisor's own end calls this, the endpoint
when its supervisor was killed, and the next `amibuild local …` when the endpoint was killed too.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from amibuild import proc
from amibuild.errors import WaitTimeout
from amibuild.local.machines import cgroups, network
from amibuild.local.machines.order import MACHINES, Addresses, Isolation, Order
from amibuild.local.machines.processes import command_line, everybody, folder_of
from amibuild.wait import Look, until

log = logging.getLogger(__name__)

LOOP_FREE_S = 10.0
GROUP_FREE_S = 10.0
# A supervisor hears of its endpoint's end at once, and needs a second for its own.
LEAVE_S = 20.0
KILLED_S = 20.0


def remove(order: Order, supervisor: int, *, link: bool = True) -> None:
    """All that is left of one machine whose supervisor is, or was, that process.

    Nothing of it may go on. `link` is off when its number is another's by now.
    Raises: WaitTimeout when its loop device or its control group stays in use.
    """
    if link and order.isolation is Isolation.FULL:
        network.remove_link(order.addresses)
    if order.root is not None:
        await_free_loop(Path(order.root.disk))
    if order.own_cgroup:
        _remove_groups(cgroups.groups_of(order.instance_id, supervisor))


def _remove_groups(groups: tuple[Path, ...]) -> None:
    """A first process that its supervisor had not told of yet dies with it too, but later."""

    def look() -> Look[bool]:
        try:
            cgroups.remove(groups)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return Look("in use")
        return Look("removed", True)

    until(look, what=f"the end of all in {groups[0].name}", timeout_s=GROUP_FREE_S)


def remove_all(machines: Path) -> tuple[str, ...]:
    """What killed supervisors left of machines whose folders are below `machines`, in words.

    The machines must be nobody's: their endpoint is gone. Raises: HostError, WaitTimeout.
    """
    found = []
    supervisors = supervisors_below(machines)
    if supervisors:
        found.append(f"processes {' '.join(map(str, supervisors))}")
        _await_end(machines)
    if os.geteuid() != 0:
        return tuple(found)
    # Each is in several hierarchies.
    found += sorted({f"control group {group.name}" for group in cgroups.sweep()})
    found += [f"network link {link}" for link in remove_links()]
    for disk in sorted(_backing_files(machines)):
        found.append(f"loop device of {disk}")
        _free_loop(disk)
    return tuple(found)


def supervisors_below(machines: Path) -> tuple[int, ...]:
    """Supervisors, and the first processes of the machines: they are of one program."""
    return tuple(
        pid
        for pid in everybody()
        if cgroups.KEEPER in command_line(pid) and _is_below(folder_of(pid), machines)
    )


def _is_below(folder: Path | None, machines: Path) -> bool:
    return folder is not None and folder.is_relative_to(machines.resolve())


def _await_end(machines: Path) -> None:
    def look() -> Look[bool]:
        left = supervisors_below(machines)
        return Look(f"processes {left}", not left or None)

    what = f"the end of the machines in {machines}"
    try:
        until(look, what=what, timeout_s=LEAVE_S)
    except WaitTimeout:
        for pid in supervisors_below(machines):
            log.warning("process %d did not end with its endpoint: killed", pid)
            _kill(pid)
        until(look, what=what, timeout_s=KILLED_S)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return


def remove_links() -> tuple[str, ...]:
    """Our links on the host whose machine nobody has any more."""
    removed = []
    for folder in Path("/sys/class/net").iterdir():
        number = folder.name.removeprefix("amib")
        if not number.isdigit() or number == folder.name or int(number) >= MACHINES:
            continue
        with network.claimed(int(number)) as ours:
            if ours and folder.exists():
                network.remove_link(Addresses(int(number)))
                removed.append(folder.name)
    return tuple(removed)


def await_free_loop(disk: Path, *, timeout_s: float = LOOP_FREE_S) -> None:
    """Loop devices clear themselves when their last mount goes, but not at once.

    The kernel names their files by the resolved path, whatever name they were opened by.
    """
    disk = disk.resolve()

    def look() -> Look[bool]:
        held = [device for device, file in _loops() if file == disk]
        return Look(f"held by {' '.join(held)}", not held or None)

    until(look, what=f"the loop device of {disk}", timeout_s=timeout_s)


def _free_loop(disk: Path) -> None:
    """Detaches what `mount` had attached and did not come to mount."""
    try:
        await_free_loop(disk, timeout_s=2)
    except WaitTimeout:
        for device, file in _loops():
            if file == disk:
                proc.run(["losetup", "--detach", f"/dev/{device}"], check=False)
        await_free_loop(disk)


def _backing_files(machines: Path) -> set[Path]:
    return {file for _, file in _loops() if file.is_relative_to(machines.resolve())}


def _loops() -> Iterator[tuple[str, Path]]:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            text = backing.read_text().strip().removesuffix(" (deleted)")
        except OSError:  # it went while we looked
            continue
        yield backing.parts[3], Path(text)
