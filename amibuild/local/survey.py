"""A look at all of the store at once: what is lost, and what nobody needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from amibuild.local.blocks import SIZE, BlockList
from amibuild.local.durable import StoreDamaged

# What a nightly bake leaves when the oldest image goes is about this much: then it is time.
LEAST_GARBAGE = 256 << 20
GARBAGE_SHARE = 0.2


@dataclass(frozen=True)
class Survey:
    """`lost` is why a snapshot can't be used, by its id.

    `garbage_bytes` is what no snapshot names, of `block_bytes` in all.
    """

    lost: Mapping[str, StoreDamaged]
    block_bytes: int
    garbage_bytes: int

    @property
    def worth_collecting(self) -> bool:
        return self.garbage_bytes >= max(LEAST_GARBAGE, GARBAGE_SHARE * self.block_bytes)


@dataclass(frozen=True)
class Collected:
    """What a collection freed, or why it could not."""

    blocks: int = 0
    bytes: int = 0
    refused: str = ""


@dataclass(frozen=True)
class StoreUsage:
    """`block_bytes` is what all snapshots take together, shared blocks counted once."""

    images: int
    snapshots: int
    parameters: int
    blocks: int
    block_bytes: int


def look(
    lists: Mapping[str, BlockList],
    damaged: Mapping[str, StoreDamaged],
    sizes: Mapping[str, int],
    path: Callable[[str], Path],
) -> Survey:
    """From each snapshot's list, those that have none, and the blocks that there are.

    Not from what is in the blocks: `path` only says where one would be.
    """
    lost, named = dict(damaged), set[str]()
    for snapshot_id, blocks in lists.items():
        for _, digest in blocks.entries:
            named.add(digest)
            if sizes.get(digest) != SIZE and snapshot_id not in lost:
                what = "missing" if digest not in sizes else "cut"
                lost[snapshot_id] = StoreDamaged(path(digest), f"this block is {what}")
    garbage = sum(size for name, size in sizes.items() if name not in named)
    return Survey(lost, sum(sizes.values()), garbage)
