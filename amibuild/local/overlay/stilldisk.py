"""A volume's disk, for as long as it is read."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amibuild.local.life import Life
from amibuild.local.machines.base import Driver
from amibuild.local.overlay.desk import Desk, Refusal
from amibuild.local.overlay.volumes import is_root, volume_file

_numbers = itertools.count()


def writer(volume: Any) -> Life | None:
    """The machine that may be writing to it: not one that is off, and no scripted one."""
    life = _life(volume)
    if life is None or life.driver.driver is Driver.NONE:
        return None
    return life if volume.attachment.instance.state != "stopped" else None


def disk_of(volume: Any) -> Path:
    """An instance's root disk is its machine's own."""
    life = _life(volume)
    return life.disk if life is not None and is_root(volume) else volume_file(volume.id)


@contextmanager
def still_disk(volume: Any) -> Iterator[Path]:
    """The disk's content as it is now, under a name that stays good until the end.

    For a volume that nobody writes to: `Life.copying_disks` is for the others. Raises: Refusal.
    """
    life = _life(volume)
    if getattr(volume, "phase", None) is not None:
        raise Refusal("IncorrectState", f"Volume '{volume.id}' is {volume.phase}.")
    if life is not None and life.leaving and not life.disk.exists():
        raise Refusal("IncorrectState", f"Volume '{volume.id}' went with its instance.")
    if not disk_of(volume).exists():
        raise Refusal("IncorrectState", f"Volume '{volume.id}' is still being made.")
    if life is None:
        with _linked(volume) as still:
            yield still
        return
    # Of a machine that is off: it starts once this is over.
    with life.reading_disk() as root:
        if is_root(volume):
            yield root
        else:
            with _linked(volume) as still:
                yield still


def _life(volume: Any) -> Life | None:
    attached = volume.attachment
    return Desk.current.fleet.life(attached.instance.id) if attached is not None else None


@contextmanager
def _linked(volume: Any) -> Iterator[Path]:
    disk = volume_file(volume.id)
    still = disk.with_name(f"{volume.id}.{next(_numbers)}.capture")
    os.link(disk, still)
    try:
        yield still
    finally:
        still.unlink(missing_ok=True)
