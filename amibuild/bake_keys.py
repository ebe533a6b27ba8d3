"""Where the keys of a bake over SSH are kept: they go with the machines that they open."""

from __future__ import annotations

from pathlib import Path

from amibuild.journal import Remains, ResourceKind, journal_path
from amibuild.names import BakeId


def keys_file(state_dir: Path, bake_id: BakeId) -> Path:
    """What opens its machines, for whoever goes on with it or wants a look at one."""
    return state_dir / "ssh" / bake_id


def forget_keys(state_dir: Path, bake_id: BakeId) -> None:
    """Once the bake has no machine any more that they would open."""
    left = Remains(journal_path(state_dir, bake_id)).resources.values()
    if not any(one.kind is ResourceKind.INSTANCE for one in left):
        keys_file(state_dir, bake_id).unlink(missing_ok=True)
