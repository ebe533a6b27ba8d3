"""What machines leave on a host, listed: nothing, once they have ended."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from amibuild.local.machines.cgroups import KEEPER, systemd_groups
from amibuild.local.machines.processes import descendants


@dataclass(frozen=True)
class Leftovers:
    """Everything of one machine that the host still has. True when there is anything."""

    processes: tuple[str, ...]
    mounts: tuple[str, ...]
    loops: tuple[str, ...]
    links: tuple[str, ...]
    groups: tuple[str, ...]

    def __bool__(self) -> bool:
        return any((self.processes, self.mounts, self.loops, self.links, self.groups))


def leftovers(instance_id: str, run_dir: Path, disk: Path, link: str = "") -> Leftovers:
    """Of the machine with that id, folder and disk; `link` is its veth's name on the host.

    Other machines may run meanwhile: only what carries this one's names counts.
    """
    names = (instance_id, str(run_dir), str(disk))
    return Leftovers(
        processes=tuple(_processes(names)),
        mounts=tuple(_mounts(names)),
        loops=tuple(_loops(disk)),
        links=tuple(p.name for p in Path("/sys/class/net").iterdir() if p.name == link),
        groups=tuple(
            str(path) for group in systemd_groups() for path in group.glob(f"*{instance_id}*")
        ),
    )


def _processes(names: tuple[str, ...]) -> list[str]:
    """Processes that name the machine, or work in its folder: supervisors do."""
    own = set(descendants(os.getpid())) & {os.getpid()}
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) in own:
            continue
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            works_in = str((folder / "cwd").readlink())
        except OSError:  # it ended while we looked, or has no folder any more: a zombie
            continue
        if any(name in words for name in names) or (KEEPER in words and works_in in names):
            found.append(f"{folder.name} {words}")
    return found


def _mounts(names: tuple[str, ...]) -> list[str]:
    """In every mount namespace, not only ours: a namespace lives as long as a process in it."""
    found: set[str] = set()
    for table in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            lines = table.read_text().splitlines()
        except OSError:
            continue
        found.update(line for line in lines if any(name in line for name in names))
    return sorted(found)


def _loops(disk: Path) -> list[str]:
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            used = backing.read_text()
        except OSError:
            continue
        if str(disk.resolve()) in used:
            found.append(backing.parts[3])
    return found
