"""Everything of the local target that outlives the endpoint: images, snapshots, parameters.

One folder, one process at a time:

    format        the version of this layout
    lock          held by the process that has it open, whose id it says
    images/       one record a file (records.py)
    snapshots/    a record and the list of its blocks, each
    parameters/   one record a file
    blocks/       what the snapshots' disks hold (blocks.py)
    temporary/    half-made things, thrown away when the store is opened

A file that was cut or changed costs what it described, and nothing else: `damaged()` names it.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from amibuild.errors import HostError
from amibuild.local import survey
from amibuild.local.blocks import SIZE, BlockList, Blocks, Progress
from amibuild.local.durable import (
    StoreBusy,
    StoreDamaged,
    StoreFull,
    StoreTooNew,
    check_format,
    on_disk,
    open_lock,
    release_lock,
    write_whole,
)
from amibuild.local.records import (
    DeviceRecord,
    Drawer,
    ImageRecord,
    ParameterRecord,
    ParameterVersion,
    Permission,
    SnapshotRecord,
)
from amibuild.local.survey import Collected, StoreUsage, Survey

__all__ = [
    "Collected",
    "DeviceRecord",
    "ImageRecord",
    "ParameterRecord",
    "ParameterVersion",
    "Permission",
    "SnapshotInUse",
    "SnapshotRecord",
    "Store",
    "StoreBusy",
    "StoreDamaged",
    "StoreFull",
    "StoreTooNew",
    "StoreUsage",
    "Survey",
    "UnknownSnapshot",
]

log = logging.getLogger(__name__)

GIB = 1 << 30


class SnapshotInUse(HostError):
    """EC2's InvalidSnapshot.InUse."""

    def __init__(self, snapshot_id: str, images: Sequence[str]) -> None:
        super().__init__(f"{snapshot_id} is in use by {', '.join(images)}")
        self.snapshot_id = snapshot_id
        self.images = tuple(images)


class UnknownSnapshot(HostError):
    """EC2's InvalidSnapshot.NotFound."""

    def __init__(self, snapshot_id: str) -> None:
        super().__init__(f"there is no snapshot {snapshot_id}")
        self.snapshot_id = snapshot_id


class Store:
    """An open store. Every method may be called from any thread."""

    def __init__(self, root: Path, lock: int, *, tidy: bool) -> None:
        """Use `open`. `lock` is the open file that holds the lock."""
        self._root = root
        self._lock = lock
        self._changing = threading.RLock()
        self._temporary = root / "temporary"
        if tidy:
            shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(exist_ok=True)
        self._format_damage = check_format(root, self._temporary)
        self._images = Drawer(root / "images", ImageRecord, self._temporary)
        self._snapshots = Drawer(root / "snapshots", SnapshotRecord, self._temporary)
        self._parameters = Drawer(root / "parameters", ParameterRecord, self._temporary)
        self._blocks = Blocks(root / "blocks", self._temporary)
        if tidy:
            self._drop_lists_without_record()

    @classmethod
    def open(cls, root: Path, *, tidy: bool = True) -> Store:
        """Makes the folder when there is none; throws away what a killed process left half-made,
        unless it is opened for a look only, and so not `tidy`.

        Raises: StoreBusy, StoreTooNew, StoreFull.
        """
        with on_disk(root):
            root.mkdir(parents=True, exist_ok=True)
            # Parameters may be secret: EC2's users don't share theirs with the machine's others.
            root.chmod(0o700)
            lock = open_lock(root)
            try:
                return cls(root, lock, tidy=tidy)
            except BaseException:
                os.close(lock)
                raise

    @property
    def root(self) -> Path:
        return self._root

    def close(self) -> None:
        """Lets go of the lock. Safe to call twice."""
        if self._lock >= 0:
            release_lock(self._lock)
        self._lock = -1

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def images(self) -> tuple[ImageRecord, ...]:
        with self._changing:
            return self._images.all()

    def snapshots(self) -> tuple[SnapshotRecord, ...]:
        with self._changing:
            return self._snapshots.all()

    def parameters(self) -> tuple[ParameterRecord, ...]:
        with self._changing:
            return self._parameters.all()

    def parameter(self, name: str) -> ParameterRecord | None:
        return next((p for p in self.parameters() if p.name == name), None)

    def damaged(self) -> tuple[StoreDamaged, ...]:
        """The files that could not be used when the store was opened, or since."""
        with self._changing:
            drawers = (self._images, self._snapshots, self._parameters)
            found = [damage for drawer in drawers for damage in drawer.damaged.values()]
            return (*self._format_damage, *found)

    def put_image(self, record: ImageRecord) -> None:
        with self._changing, on_disk(self._root):
            self._images.put(record)

    def delete_image(self, image_id: str) -> None:
        """Its snapshot stays, as in EC2. Nothing happens when there is no such image."""
        with self._changing, on_disk(self._root):
            self._images.delete(image_id)

    def put_parameter(self, record: ParameterRecord) -> None:
        with self._changing, on_disk(self._root):
            self._parameters.put(record)

    def delete_parameter(self, name: str) -> None:
        with self._changing, on_disk(self._root):
            record = self.parameter(name)
            if record is not None:
                self._parameters.delete(record.key)

    def put_snapshot(self, record: SnapshotRecord) -> None:
        """Changes what is said about a snapshot, such as its tags; `capture` makes one.

        Raises: UnknownSnapshot.
        """
        with self._changing, on_disk(self._root):
            self._snapshot(record.id)
            self._snapshots.put(record)

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Its blocks stay until `collect`. Nothing happens when there is no such snapshot.

        Raises: SnapshotInUse while an image names it.
        """
        with self._changing, on_disk(self._root):
            images = [i.id for i in self._images.all() if snapshot_id in i.snapshot_ids]
            if images:
                raise SnapshotInUse(snapshot_id, images)
            self._snapshots.delete(snapshot_id)
            self._list_path(snapshot_id).unlink(missing_ok=True)

    def capture(
        self,
        disk: Path,
        snapshot_id: str,
        *,
        volume_size_gib: int,
        owner: str,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        started: datetime | None = None,
        region: str | None = None,
        volume_id: str = "vol-ffffffff",
        kms_key: str | None = None,
        progress: Progress = lambda done, total: None,
    ) -> SnapshotRecord:
        """A snapshot of a raw disk. It exists once all of it is safe on the disk, not before.

        `progress` hears bytes done and bytes in all, from the threads that do the work.
        Raises: StoreFull; nothing but unnamed blocks is left then.
        """
        started = started or datetime.now(UTC)
        with on_disk(self._root), self._blocks.in_use():
            blocks = self._blocks.capture(disk, progress)
            record = SnapshotRecord(
                id=snapshot_id,
                volume_size_gib=volume_size_gib,
                description=description,
                started=started,
                tags=dict(tags or {}),
                owner=owner,
                blocks=len(blocks.entries),
                data_bytes=len(blocks.entries) * SIZE,
                blocks_sha256=blocks.sha256,
                region=region,
                volume_id=volume_id,
                encrypted=kms_key is not None,
                kms_key=kms_key,
            )
            with self._changing:
                self._put_blocks(record, blocks)
        return record

    def copy_snapshot(self, source_id: str, copy: SnapshotRecord) -> SnapshotRecord:
        """A snapshot of the same blocks, which take no space again. `copy` says all but them.

        Raises: UnknownSnapshot; StoreDamaged; StoreFull.
        """
        with on_disk(self._root), self._blocks.in_use(), self._changing:
            source = self._snapshot(source_id)
            shared = {"blocks", "data_bytes", "blocks_sha256"}
            record = copy.model_copy(update=source.model_dump(include=shared))
            self._put_blocks(record, self._block_list(source))
        return record

    def materialise(self, snapshot_id: str, disk: Path, *, size_gib: int) -> None:
        """A new sparse raw file of `size_gib` that starts with the snapshot's content.

        Raises: UnknownSnapshot; StoreDamaged, which names the file; StoreFull. No disk is left.
        """
        with on_disk(disk.parent), self._blocks.in_use():
            with self._changing:
                blocks = self._block_list(self._snapshot(snapshot_id))
            self._blocks.materialise(blocks, disk, size_gib * GIB)

    def is_whole(self, snapshot_id: str) -> bool:
        """Whether its record, its list and all of its blocks are there; 5 ms for 400 MB.

        What the blocks hold is checked when they are used: a wrong one is put aside then, and
        missing from there on.
        """
        with self._changing:
            try:
                blocks = self._block_list(self._snapshot(snapshot_id))
            except (StoreDamaged, UnknownSnapshot):
                return False
        return all(self._blocks.has(digest) for _, digest in blocks.entries)

    def collect(self, *, dry_run: bool = False) -> Collected:
        """Removes the blocks that no snapshot names.

        Nothing goes while a snapshot is damaged: its blocks can't be told from the others.
        """
        try:
            with on_disk(self._root):
                return Collected(*self._blocks.collect(self._named_blocks, dry_run=dry_run))
        except StoreDamaged as damage:
            log.warning("no block is freed: %s", damage)
            return Collected(refused=damage.message)

    def collect_if_much(self) -> Collected:
        """Collects where that is worth it: a share of the store, and no small change."""
        if not self.survey().worth_collecting:
            return Collected()
        return self.collect()

    def survey(self) -> Survey:
        """Without a look into the blocks, as `is_whole`.

        No record comes or goes meanwhile, so what one names was there before it, and no collection
        takes it. One that runs takes others, and does not make a status wait for it.
        """
        with self._changing:
            sizes = self._blocks.sizes()
            damaged = dict(self._snapshots.damaged)
            lists = {}
            for record in self._snapshots.all():
                try:
                    lists[record.id] = self._block_list(record)
                except StoreDamaged as damage:
                    damaged[record.id] = damage
            for image in self._images.all():
                for needed in image.snapshot_ids - {*lists, *damaged}:
                    damaged[needed] = self.missing_snapshot(needed)
        return survey.look(lists, damaged, sizes, self._blocks.path)

    def missing_snapshot(self, snapshot_id: str) -> StoreDamaged:
        """Why a snapshot that an image names is not there."""
        path = self._root / "snapshots" / f"{snapshot_id}.json"
        return self._snapshots.damaged.get(snapshot_id) or StoreDamaged(path, "it is missing")

    def damaged_images(self) -> dict[str, StoreDamaged]:
        """By the id that the file's name says."""
        with self._changing:
            return dict(self._images.damaged)

    def usage(self) -> StoreUsage:
        with self._changing:
            sizes = self._blocks.sizes()
            counts = (self._images.all(), self._snapshots.all(), self._parameters.all())
            images, snapshots, parameters = (len(found) for found in counts)
        return StoreUsage(images, snapshots, parameters, len(sizes), sum(sizes.values()))

    def _snapshot(self, snapshot_id: str) -> SnapshotRecord:
        record = self._snapshots.get(snapshot_id)
        if record is None:
            raise UnknownSnapshot(snapshot_id)
        return record

    def _put_blocks(self, record: SnapshotRecord, blocks: BlockList) -> None:
        path = self._list_path(record.id)
        write_whole(path, blocks.pack(), temporary=self._temporary)
        self._snapshots.put(record)

    def _list_path(self, snapshot_id: str) -> Path:
        return self._root / "snapshots" / f"{snapshot_id}.blocks"

    def _block_list(self, record: SnapshotRecord) -> BlockList:
        path = self._list_path(record.id)
        try:
            blocks = BlockList.unpack(path.read_bytes())
        except (OSError, ValueError) as error:
            raise StoreDamaged(path, "it is not a list of blocks") from error
        if blocks.sha256 != record.blocks_sha256:
            raise StoreDamaged(path, "its checksum is wrong")
        return blocks

    def _named_blocks(self) -> set[str]:
        with self._changing:
            for damage in self._snapshots.damaged.values():
                raise damage
            lists = [self._block_list(record) for record in self._snapshots.all()]
        return {digest for blocks in lists for _, digest in blocks.entries}

    def _drop_lists_without_record(self) -> None:
        for path in (self._root / "snapshots").glob("*.blocks"):
            if not path.with_suffix(".json").exists():
                path.unlink()
