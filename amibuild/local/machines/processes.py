"""The process tree of a machine as the host sees it, read from /proc."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

PROC = Path("/proc")


def descendants(root: int) -> tuple[int, ...]:
    """`root` and all below it, parents first; empty when it is gone."""
    if not (PROC / str(root) / "stat").exists():
        return ()
    found = [root]
    try:
        for pid in found:
            found.extend(_children(pid))
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return _descendants_by_parent(root)
    return tuple(found)


def _children(pid: int) -> list[int]:
    """Sorted. Asked of each thread: with ten machines a look at every process of the host took
    4 ms, and each of them is looked at 20 times a second while it boots.
    """
    found: list[int] = []
    try:
        threads = list((PROC / str(pid) / "task").iterdir())
    except OSError:  # it ended while we looked
        return found
    for thread in threads:
        try:
            found += map(int, (thread / "children").read_text().split())
        except FileNotFoundError:
            if thread.exists():
                raise
        except ProcessLookupError:
            continue
    return sorted(found)


def _descendants_by_parent(root: int) -> tuple[int, ...]:
    children: dict[int, list[int]] = defaultdict(list)
    alive = set()
    for pid in everybody():
        try:
            # The name in brackets may hold anything, spaces and brackets included.
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended while we looked
            continue
        alive.add(pid)
        children[int(fields[1])].append(pid)
    if root not in alive:
        return ()
    found = [root]
    for pid in found:
        found.extend(sorted(children[pid]))
    return tuple(found)


def everybody() -> Iterator[int]:
    return (int(folder.name) for folder in PROC.iterdir() if folder.name.isdigit())


def command_line(pid: int) -> str:
    """Its words with blanks between; empty when it is gone, or a zombie."""
    try:
        return (
            (PROC / str(pid) / "cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode("utf8", "replace")
        )
    except OSError:
        return ""


def folder_of(pid: int) -> Path | None:
    """Where it works; None when it is gone, or another user's."""
    try:
        return Path(str((PROC / str(pid) / "cwd").readlink()).removesuffix(" (deleted)"))
    except OSError:
        return None


def namespace_pids(pid: int) -> tuple[int, ...]:
    """Its numbers in each pid namespace from the host's inwards; empty when it is gone.

    Source: proc(5), NSpid.
    """
    try:
        lines = Path("/proc", str(pid), "status").read_text().splitlines()
    except OSError:
        return ()
    for line in lines:
        if line.startswith("NSpid:"):
            return tuple(int(word) for word in line.split()[1:])
    return ()


def machine_init(pids: Sequence[int]) -> int | None:
    """The host's number of a container's PID 1; `pids` are its keeper and all below it.

    It changes when the machine reboots itself.
    """
    # One namespace for the supervisor, one more for the machine.
    return _first_of_namespace(pids, 2)


def supervisor_init(pids: Sequence[int]) -> int | None:
    """The same of the supervisor's own PID 1, in whose mounts the machine's disk is."""
    return _first_of_namespace(pids, 1)


def _first_of_namespace(pids: Sequence[int], below: int) -> int | None:
    if not pids:
        return None
    depth = len(namespace_pids(pids[0]))
    for pid in pids:
        numbers = namespace_pids(pid)
        if len(numbers) == depth + below and numbers[-1] == 1:
            return pid
    return None
