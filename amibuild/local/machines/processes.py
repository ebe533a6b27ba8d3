"""The process tree of a machine as the host sees it, read from /proc."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path


def descendants(root: int) -> tuple[int, ...]:
    """`root` and all below it, parents first; empty when it is gone."""
    children: dict[int, list[int]] = defaultdict(list)
    alive = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # The name in brackets may hold anything, spaces and brackets included.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended while we looked
                continue
            alive.add(int(folder.name))
            children[int(fields[1])].append(int(folder.name))
    if root not in alive:
        return ()
    found = [root]
    for pid in found:
        found.extend(sorted(children[pid]))
    return tuple(found)


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
