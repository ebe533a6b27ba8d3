"""Raw disks: the partition table, growing and trimming, with the real file system tools."""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from amibuild import proc, wait
from amibuild.errors import HostError
from amibuild.local import disk, gpt, private

EPOCH = 1_763_800_000
SEED = uuid.UUID("00000000-0000-4000-8000-00000000abcd")
TOOLS = ("mke2fs", "e2fsck", "resize2fs", "debugfs", "mkfs.vfat", "mmd", "mcopy", "mtype")
needs_tools = pytest.mark.skipif(
    any(proc.which(tool) is None for tool in TOOLS), reason="needs e2fsprogs, dosfstools, mtools"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk")


def made(folder: Path, *, size_gib: int = 1) -> Path:
    tree = folder / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "hostname").write_text("localhost\n")
    (tree / "large").write_bytes(os.urandom(3 << 20))
    (folder / "boot.efi").write_bytes(b"MZ bootloader")
    path = folder / "disk"
    disk.make_disk(
        tree, path, size_gib=size_gib, bootloader=folder / "boot.efi", seed=SEED, epoch=EPOCH
    )
    return path


def assert_file_system_is_clean(path: Path) -> None:
    fs = disk.file_system(path, disk.root_partition(path))
    assert proc.run(["e2fsck", "-f", "-n", fs], check=False).exit_code == 0


def read_file(path: Path, name: str) -> bytes:
    fs = disk.file_system(path, disk.root_partition(path))
    return proc.run(["debugfs", "-R", f"cat {name}", fs]).stdout


def holds(path: Path, secret: bytes) -> bool:
    """Whether the first 128 MiB hold it: all that a small tree uses."""
    with path.open("rb") as file:
        return secret in file.read(128 << 20)


def blocks_of(path: Path) -> int:
    fs = disk.file_system(path, disk.root_partition(path))
    said = proc.run(["dumpe2fs", "-h", fs]).text
    line = next(line for line in said.splitlines() if line.startswith("Block count:"))
    return int(line.split(":")[1])


def test_a_partition_table_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, 1 << 30)
    guids = [uuid.uuid5(SEED, str(number)) for number in range(3)]
    table = gpt.Table(
        guids[0],
        (
            gpt.Partition(1, gpt.MIB, 64 * gpt.MIB, gpt.ESP, guids[1], "esp"),
            gpt.Partition(2, 65 * gpt.MIB, gpt.MIB, gpt.LINUX_ROOT_X86_64, guids[2], "root"),
        ),
    )
    gpt.write(path, table)
    assert gpt.read(path) == table
    spread = gpt.spread(table, 1 << 30)
    assert spread.partitions == (table.partitions[0], replace(table.partitions[1], size=958 << 20))


@pytest.mark.skipif(proc.which("sfdisk") is None, reason="needs sfdisk, as the second opinion")
def test_sfdisk_finds_no_fault_in_a_written_and_a_grown_table(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()
    root = gpt.Partition(2, 65 * gpt.MIB, gpt.MIB, gpt.LINUX_ROOT_X86_64, SEED, "root")
    table = gpt.Table(SEED, (root,))
    for size_gib in (1, 8, 3000):
        os.truncate(path, size_gib << 30)
        table = gpt.spread(table, size_gib << 30)
        gpt.write(path, table)
        said = proc.run(["sfdisk", "--verify", path])
        assert b"No errors detected" in said.stdout + said.stderr
        assert said.stderr == b""


@pytest.mark.parametrize("sector", [1, 2])
def test_a_damaged_partition_table_is_refused(tmp_path: Path, sector: int) -> None:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, 1 << 30)
    root = gpt.Partition(2, gpt.MIB, gpt.MIB, gpt.LINUX_ROOT_X86_64, SEED, "root")
    gpt.write(path, gpt.Table(SEED, (root,)))
    with path.open("r+b") as file:
        file.seek(sector * gpt.SECTOR + 60)
        file.write(b"?")
    with pytest.raises(HostError, match="damaged"):
        disk.root_partition(path)


def test_a_file_that_is_no_disk_is_refused(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"x" * 2048)
    with pytest.raises(HostError, match="has no GPT partition table"):
        disk.root_partition(tmp_path / "disk")


@needs_tools
def test_a_made_disk_has_the_layout_that_machines_expect(tmp_path: Path) -> None:
    path = made(tmp_path)
    root = disk.root_partition(path)
    assert (root.offset, root.size) == (65 << 20, (1024 - 66) << 20)
    assert root.kind == gpt.LINUX_ROOT_X86_64
    assert read_file(path, "/etc/hostname") == b"localhost\n"
    assert read_file(path, "/large") == (tmp_path / "tree" / "large").read_bytes()
    esp = f"{path}@@{1 << 20}"
    loaded = proc.run(["mtype", "-i", esp, "::/EFI/BOOT/BOOTX64.EFI"]).stdout
    assert loaded == b"MZ bootloader"
    fs = disk.file_system(path, root)
    said = proc.run(["dumpe2fs", "-h", fs]).text
    assert "Filesystem volume name:   root" in said
    assert "metadata_csum" in said
    assert "metadata_csum_seed" not in said  # GRUB 2.06 can't read it
    assert_file_system_is_clean(path)


@needs_tools
@pytest.mark.parametrize("size_gib", [2, 3, 8, 33])
def test_a_grown_disk_keeps_its_files_and_is_clean(tmp_path: Path, size_gib: int) -> None:
    path = made(tmp_path)
    disk.grow(path, size_gib)
    assert path.stat().st_size == size_gib << 30
    root = disk.root_partition(path)
    assert root.size == ((size_gib * 1024) - 66) << 20
    assert blocks_of(path) * 4096 == root.size
    assert read_file(path, "/large") == (tmp_path / "tree" / "large").read_bytes()
    assert_file_system_is_clean(path)
    assert path.stat().st_blocks * 512 < 64 << 20


@needs_tools
def test_a_disk_is_grown_again_and_again(tmp_path: Path) -> None:
    path = made(tmp_path)
    for size_gib in (2, 2, 4, 9, 40):
        disk.grow(path, size_gib)
        assert_file_system_is_clean(path)
    assert read_file(path, "/etc/hostname") == b"localhost\n"


@needs_tools
def test_a_disk_is_not_shrunk(tmp_path: Path) -> None:
    path = made(tmp_path, size_gib=2)
    with pytest.raises(HostError, match="holds 2 GiB, which 1 GiB can't"):
        disk.grow(path, 1)
    assert path.stat().st_size == 2 << 30


@needs_tools
def test_a_damaged_file_system_is_not_grown(tmp_path: Path) -> None:
    path = made(tmp_path)
    root = disk.root_partition(path)
    with path.open("r+b") as file:
        file.seek(root.offset)
        file.write(b"\xff" * (256 << 10))
    with pytest.raises(HostError, match=r"the file system of .* is damaged"):
        disk.grow(path, 2)
    assert disk.trim(path) == 0


@needs_tools
def test_trimming_gives_back_what_a_deleted_file_held(tmp_path: Path) -> None:
    path = made(tmp_path)
    secret = (tmp_path / "tree" / "large").read_bytes()[:4096]
    assert holds(path, secret)
    fs = disk.file_system(path, disk.root_partition(path))
    proc.run(["debugfs", "-w", "-R", "rm /large", fs])
    assert disk.trim(path) >= 3 << 20
    assert not holds(path, secret)
    assert_file_system_is_clean(path)


@needs_tools
def test_the_same_tree_makes_the_same_disk(tmp_path: Path) -> None:
    tables = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path = made(tmp_path / name)
        fs = disk.file_system(path, disk.root_partition(path))
        said = proc.run(["dumpe2fs", "-h", fs]).text.splitlines()
        stable = ("Filesystem UUID", "Directory Hash Seed", "Filesystem created", "Last write")
        tables.append((gpt.read(path), [line for line in said if line.startswith(stable)]))
    assert tables[0] == tables[1]
    assert len(tables[0][1]) == 4


@needs_tools
@needs_root
def test_a_program_sees_the_root_read_only_and_leaves_nothing(tmp_path: Path) -> None:
    path, mount_point = made(tmp_path), tmp_path / "mounted"
    mount_point.mkdir()
    script = 'cat "$1"/etc/hostname; touch "$1"/x || echo refused'
    done = disk.on_root(path, mount_point, ["sh", "-c", script, "sh", mount_point])
    assert done.text.splitlines() == ["localhost", "refused"]
    assert list(mount_point.iterdir()) == []
    assert str(path) not in proc.run(["losetup", "--list"]).text


@needs_tools
@needs_root
def test_the_mount_and_the_loop_device_go_with_a_program_that_fails(tmp_path: Path) -> None:
    path, mount_point = made(tmp_path), tmp_path / "mounted"
    mount_point.mkdir()
    with pytest.raises(proc.ProcessFailed) as failed:
        disk.on_root(path, mount_point, ["sh", "-c", "exit 7"])
    assert failed.value.status == 7
    with pytest.raises(HostError, match="took longer than"):
        disk.on_root(path, mount_point, ["sleep", "60"], timeout_s=0.5)

    def look() -> wait.Look[bool]:
        held = str(path) in proc.run(["losetup", "--list"]).text
        return wait.Look("attached" if held else "free", None if held else True)

    # The kernel takes a killed namespace apart on its own time: milliseconds.
    assert wait.until(look, what="the loop device to go", timeout_s=10)


def test_lines_are_handed_over_as_they_come_and_failures_carry_the_last(tmp_path: Path) -> None:
    try:
        private.check()
    except HostError as error:
        pytest.skip(str(error))
    heard: list[str] = []
    with pytest.raises(proc.ProcessFailed, match="exit code 3\none\n1\ntwo"):
        private.follow(
            ["sh", "-c", "echo one >&2; echo $$ >&2; echo two >&2; exit 3"], heard.append
        )
    assert heard == ["one", "1", "two"]  # it is process 1 of its namespace
