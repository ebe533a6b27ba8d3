"""`amibuild local gc`: what the store holds for nobody, and what killed endpoints left beside it.

Blocks that no snapshot names, blocks put aside as damaged, half-made files, half-removed stores,
and the disks of machines that are gone. A running endpoint collects its own blocks; without one,
whoever holds the store's lock may remove all of it, since machines and volumes end with their
endpoint.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amibuild.local.leftovers import MACHINES, STORE, tidy_held
from amibuild.local.removal import doomed, remove_rest
from amibuild.local.store import Collected, Store


@dataclass(frozen=True)
class Freed:
    """Files and bytes as they were on the disk. `refused` is why blocks were left, by store."""

    blocks: int = 0
    block_bytes: int = 0
    left_files: int = 0
    left_bytes: int = 0
    refused: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    def __add__(self, other: Freed) -> Freed:
        return Freed(
            self.blocks + other.blocks,
            self.block_bytes + other.block_bytes,
            self.left_files + other.left_files,
            self.left_bytes + other.left_bytes,
            self.refused + other.refused,
            self.damaged + other.damaged,
        )


def of_store(store: Store, *, dry_run: bool) -> Freed:
    """The blocks of an open store. Waits for what is being captured."""
    found: Collected = store.collect(dry_run=dry_run)
    refused = (found.refused,) if found.refused else ()
    return Freed(found.blocks, found.bytes, refused=refused, damaged=damaged(store))


def damaged(store: Store) -> tuple[str, ...]:
    """What of the store can't be used, each with its file."""
    found = (*store.damaged(), *store.survey().lost.values())
    return tuple(sorted({str(damage) for damage in found}))


def kept(store: Store) -> dict[str, Any]:
    """What a store holds and what of it is damaged, as JSON has it: for `local status`."""
    return {"path": str(store.root), **asdict(store.usage()), "damaged": list(damaged(store))}


def collect(local: Path, *, dry_run: bool) -> Freed:
    """All of the local target's data folder, where no endpoint runs.

    Raises: StoreBusy when one does, or is about to; StoreTooNew.
    """
    freed = Freed()
    for root in (local, local / "none"):
        freed += _measured(doomed(root / STORE))
        if not dry_run:
            remove_rest(root / STORE)
        if not (root / STORE).is_dir():
            continue
        half_made = _measured(root / STORE / "temporary")
        # Opening a store throws away what is half-made in it, unless it is told not to.
        with Store.open(root / STORE, tidy=not dry_run) as store:
            machines = _measured(root / MACHINES)
            freed += of_store(store, dry_run=dry_run) + half_made + machines
            if not dry_run:
                tidy_held(root)
    return freed


def _measured(folder: Path) -> Freed:
    """The files below it; one that goes meanwhile counts for nothing."""
    files = size = 0
    for path in folder.rglob("*"):
        try:
            seen = path.lstat()
        except FileNotFoundError:
            continue
        if not path.is_dir():
            files, size = files + 1, size + seen.st_blocks * 512
    return Freed(left_files=files, left_bytes=size)
