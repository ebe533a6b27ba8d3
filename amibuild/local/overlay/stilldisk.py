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
from amibuild.local.overlay.volumes import volume_file

_numbers = itertools.count()


@contextmanager
def still_disk(volume: Any, *, off: bool = False) -> Iterator[Path]:
    """The disk's content as it is now, under a name that stays good until the end.

    Nothing freezes the file of a machine that runs, so its volumes are refused, unless the caller
    knows that it is `off`, as between two boots; scripted machines don't write. Raises: Refusal.
    """
    life = _life(volume)
    writes = life is not None and life.driver.driver is not Driver.NONE
    if writes and not off and volume.attachment.instance.state != "stopped":
        raise Refusal(
            "UnsupportedOperation",
            f"the local endpoint can't read the disk of a running machine: stop "
            f"{volume.attachment.instance.id} first, or detach {volume.id}",
        )
    if getattr(volume, "phase", None) is not None:
        raise Refusal("IncorrectState", f"Volume '{volume.id}' is {volume.phase}.")
    if life is not None and _is_root(volume):
        if not life.disk.exists():
            raise Refusal("IncorrectState", f"Volume '{volume.id}' is still being made.")
        with life.reading_disk() as still:
            yield still
        return
    with _linked(volume) as still:
        yield still


def _life(volume: Any) -> Life | None:
    attached = volume.attachment
    return Desk.current.fleet.life(attached.instance.id) if attached is not None else None


def _is_root(volume: Any) -> bool:
    attached = volume.attachment
    return bool(attached.device == attached.instance.root_device_name)


@contextmanager
def _linked(volume: Any) -> Iterator[Path]:
    disk = volume_file(volume.id)
    still = disk.with_name(f"{volume.id}.{next(_numbers)}.capture")
    still.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        os.link(disk, still)
    except FileNotFoundError:
        if not Desk.current.many_disks:
            raise Refusal(
                "UnsupportedOperation", f"the local endpoint keeps no disk for {volume.id}"
            ) from None
        with still.open("xb") as empty:  # a scripted machine's volume: nothing was written
            empty.truncate(volume.size << 30)
    try:
        yield still
    finally:
        still.unlink(missing_ok=True)
