"""Raw disks: made from a tree, grown, trimmed, and looked into. None of it needs a loop device,
but for `on_root`, whose mount needs root.

e2fsprogs work on a partition inside a file when its name ends in `?offset=`.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from amibuild import proc
from amibuild.errors import HostError
from amibuild.local import gpt, private, sparse

log = logging.getLogger(__name__)

MIB = gpt.MIB
GIB = 1 << 30
ESP_OFFSET = 1 * MIB
ESP_SIZE = 64 * MIB
ROOT_OFFSET = ESP_OFFSET + ESP_SIZE
ROOT_NUMBER = 2
LABEL = "root"

# The host's own defaults would differ from one Debian to the next, and the bootloader of Debian 12
# can't read two features that newer ones set (metadata_csum_seed, orphan_file).
_MKE2FS_CONF = """\
[defaults]
	base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
	default_mntopts = acl,user_xattr
	enable_periodic_fsck = 0
	blocksize = 4096
	inode_size = 256
	inode_ratio = 16384
[fs_types]
	ext4 = {
		features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
	}
"""


def root_partition(disk: Path) -> gpt.Partition:
    """Raises: HostError when the disk has no partition 2, or a damaged table."""
    for partition in gpt.read(disk).partitions:
        if partition.number == ROOT_NUMBER:
            return partition
    raise HostError(f"{disk} has no partition {ROOT_NUMBER}")


def make_disk(
    tree: Path,
    disk: Path,
    *,
    size_gib: int,
    bootloader: Path,
    seed: uuid.UUID,
    epoch: int,
) -> None:
    """A bootable disk with `tree` as its root file system.

    `bootloader` is an EFI program; ids are derived from `seed`, times from `epoch` (seconds).
    Must run where `tree` can be read in full: call it as root, or let it use a user namespace.
    """
    table = gpt.Table(
        uuid.uuid5(seed, "disk"),
        (
            gpt.Partition(1, ESP_OFFSET, ESP_SIZE, gpt.ESP, uuid.uuid5(seed, "esp"), "esp"),
            gpt.Partition(
                *(ROOT_NUMBER, ROOT_OFFSET, 0, gpt.LINUX_ROOT_X86_64),
                *(uuid.uuid5(seed, "root"), LABEL),
            ),
        ),
    )
    size = size_gib * GIB
    with disk.open("xb") as file:
        file.truncate(size)
    table = gpt.spread(table, size)
    gpt.write(disk, table)
    _make_esp(disk, bootloader, seed, epoch)
    _make_root(tree, disk, root_partition(disk), seed, epoch)


def grow(disk: Path, size_gib: int) -> None:
    """Makes the disk, its last partition and the file system in it larger; 0.3 s, measured.

    Raises: HostError when the disk is larger already, or its file system can't be grown: the disk
    is of no use then.
    """
    size, before = size_gib * GIB, disk.stat().st_size
    if size < before:
        raise HostError(f"{disk} holds {before // GIB} GiB, which {size_gib} GiB can't")
    if size == before:
        return
    table = gpt.spread(gpt.read(disk), size)
    settle(disk)
    root = next(p for p in table.partitions if p.number == ROOT_NUMBER)
    # resize2fs cuts a file to the file system's own size, as if it started at 0. It leaves alone
    # one that is no longer than that, and writes past its end as it needs to (1.47.0).
    os.truncate(disk, root.size)
    fs = file_system(disk, root)
    # Exit code 1: it mended something.
    checked = proc.run(private.bound(["e2fsck", "-f", "-p", fs]), check=False)
    if checked.exit_code > 1:
        raise HostError(f"the file system of {disk} is damaged: {checked.text.strip()}")
    proc.run(private.bound(["resize2fs", fs, f"{root.size // 1024}K"]))
    os.truncate(disk, size)
    gpt.write(disk, table)


def trim(disk: Path) -> int:
    """Makes what the file system does not use into holes; the bytes that it saved.

    So a snapshot holds no deleted file. A damaged file system is left as it is: a snapshot of it
    is as good as its disk.
    """
    before = disk.stat().st_blocks
    settle(disk)
    fs = file_system(disk, root_partition(disk))
    checked = proc.run(private.bound(["e2fsck", "-f", "-p", "-E", "discard", fs]), check=False)
    if checked.exit_code > 1:
        log.warning("%s is not trimmed: %s", disk, checked.text.strip())
    return (before - disk.stat().st_blocks) * 512


def settle(disk: Path) -> None:
    """Replays the journal of a root file system that nobody unmounted; one that is clean stays.

    e2fsck does so by itself, but not inside a disk: it opens the file system anew afterwards, and
    has forgotten the offset by then (1.47.0). So it gets the partition as a file of its own.
    A file system that is damaged beyond that is left as it is.
    """
    root = root_partition(disk)
    with disk.open("rb") as old:
        if not _needs_recovery(old.fileno(), root):
            return
        size, end = os.fstat(old.fileno()).st_size, root.offset + root.size
        alone, new = disk.with_name(f"{disk.name}.root"), disk.with_name(f"{disk.name}.settled")
        try:
            with alone.open("xb") as file:
                file.truncate(root.size)
                sparse.pour(old.fileno(), file.fileno(), start=root.offset, end=end, at=0)
            checked = proc.run(private.bound(["e2fsck", "-f", "-p", alone]), check=False)
            if checked.exit_code > 1:
                log.warning("%s is not settled: %s", disk, checked.text.strip())
                return
            with new.open("xb") as file, alone.open("rb") as root_file:
                file.truncate(size)
                number = file.fileno()
                sparse.pour(old.fileno(), number, start=0, end=root.offset, at=0)
                sparse.pour(root_file.fileno(), number, start=0, end=root.size, at=root.offset)
                sparse.pour(old.fileno(), number, start=end, end=size, at=end)
            new.replace(disk)
        finally:
            alone.unlink(missing_ok=True)
            new.unlink(missing_ok=True)


def _needs_recovery(disk: int, root: gpt.Partition) -> bool:
    """Source: the ext4 disk layout, s_magic and s_feature_incompat (INCOMPAT_RECOVER)."""
    block = os.pread(disk, 0x64, root.offset + 1024)
    magic = int.from_bytes(block[0x38:0x3A], "little")
    return magic == 0xEF53 and bool(int.from_bytes(block[0x60:0x64], "little") & 0x4)


def on_root(
    disk: Path,
    mount_point: Path,
    argv: Sequence[str | Path],
    *,
    check: bool = True,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> proc.Finished:
    """Runs a program on this host while the root file system is mounted on `mount_point`.

    The mount is read-only, leaves the journal alone, and exists for that program only: the kernel
    takes mount and loop device away with it, even when this process is killed. Needs root.
    """
    if os.geteuid() != 0:
        raise HostError("looking into a disk without booting it needs root")
    root = root_partition(disk)
    options = f"ro,noload,nodev,nosuid,loop,offset={root.offset},sizelimit={root.size}"
    script = 'mount -t ext4 -o "$1" -- "$2" "$3"; shift 3; exec "$@"'
    words = ["sh", "-euc", script, "sh", options, disk, mount_point, *argv]
    return private.run(words, check=check, stdin=stdin, env=env, timeout_s=timeout_s)


def file_system(disk: Path, partition: gpt.Partition) -> str:
    """The name by which e2fsprogs find a file system inside a disk."""
    return f"{disk}?offset={partition.offset}"


def _make_esp(disk: Path, bootloader: Path, seed: uuid.UUID, epoch: int) -> None:
    env = {"SOURCE_DATE_EPOCH": str(epoch), "MTOOLS_SKIP_CHECK": "1"}
    volume_id = f"{uuid.uuid5(seed, 'esp').fields[0]:08x}"
    mkfs = ["mkfs.vfat", "-F", "16", "-n", "ESP", "-i", volume_id, "--invariant"]
    offset = ["--offset", str(ESP_OFFSET // gpt.SECTOR)]
    proc.run([*mkfs, *offset, disk, str(ESP_SIZE // 1024)], env=env)
    image = f"{disk}@@{ESP_OFFSET}"
    proc.run(["mmd", "-i", image, "::/EFI", "::/EFI/BOOT"], env=env)
    proc.run(["mcopy", "-i", image, bootloader, "::/EFI/BOOT/BOOTX64.EFI"], env=env)


def _make_root(tree: Path, disk: Path, root: gpt.Partition, seed: uuid.UUID, epoch: int) -> None:
    config = disk.with_suffix(".mke2fs")
    config.write_text(_MKE2FS_CONF)
    fs_id = uuid.uuid5(seed, "file system")
    words: list[str | Path] = [
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-L",
        LABEL,
        "-U",
        str(fs_id),
        "-d",
        tree,
    ]
    options = f"offset={root.offset},hash_seed={uuid.uuid5(seed, 'hash')},root_owner=0:0"
    # The journal is 64 MiB otherwise, all of it copied into snapshots once it has been used.
    words += ["-J", "size=16", "-E", options, disk, f"{root.size // 1024}K"]
    env = {
        "MKE2FS_CONFIG": str(config),
        "SOURCE_DATE_EPOCH": str(epoch),
        "E2FSPROGS_FAKE_TIME": str(epoch),
    }
    try:
        if os.geteuid() == 0:
            proc.run(private.bound(words), env=env)
        else:
            private.run(words, env=env)
    finally:
        config.unlink()
