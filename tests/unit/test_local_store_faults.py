"""The local target's store when files are cut, disks full and processes killed."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.local import blocks, private
from amibuild.local.store import ParameterRecord, Store, StoreDamaged
from tests.namespaces import needs_namespaces
from tests.unit.stored import (
    AMI,
    FIRST,
    NOW,
    SECOND,
    capture,
    head,
    image,
    make_disk,
    parameter,
)

ROOT = Path(__file__).parents[2]


def fill(folder: Path) -> None:
    """A store with two snapshots that share nothing, two images and two parameters."""
    with Store.open(folder / "store") as store:
        for name, ami in ((FIRST, AMI), (SECOND, "ami-0000000000000002b")):
            capture(store, make_disk(folder / "disk", {0: os.urandom(100)}), name)
            store.put_image(image(name).model_copy(update={"id": ami}))
        store.put_parameter(parameter())
        store.put_parameter(ParameterRecord(name="/c", value="x", version=1, last_modified=NOW))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, empty, flip])
def test_any_damaged_file_is_named_and_costs_nothing_else(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    fill(tmp_path)
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    harmful = [path for path in files if path.name != "lock"]
    assert len(harmful) == 11  # format; 2 images, snapshots, lists, blocks, parameters
    for path in harmful:
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "store", copy)
        broken = copy / path.relative_to(tmp_path / "store")
        damage(broken)
        with Store.open(copy) as store:
            named = {found.path for found in store.damaged()}
            whole = 0
            for snapshot in store.snapshots():
                try:
                    store.materialise(snapshot.id, tmp_path / "disk2", size_gib=1)
                    whole += 1
                    (tmp_path / "disk2").unlink()
                except StoreDamaged as found:
                    named.add(found.path)
            records = len(store.images()) + len(store.parameters())
        assert named == {broken}, path
        lost = {"images": (1, 0), "parameters": (1, 0), "format": (0, 0)}
        lost_records, lost_disks = lost.get(path.parent.name, lost.get(path.name, (0, 1)))
        assert (4 - records, 2 - whole) == (lost_records, lost_disks), path
        assert not (tmp_path / "disk2").exists()
        shutil.rmtree(copy)


def test_nothing_is_collected_while_a_snapshot_is_damaged(tmp_path: Path) -> None:
    fill(tmp_path)
    cut(tmp_path / "store" / "snapshots" / f"{FIRST}.json")
    with Store.open(tmp_path / "store") as store:
        assert store.collect().bytes == 0
        assert store.usage().blocks == 2
        store.delete_image(AMI)
        store.delete_snapshot(FIRST)
        assert store.damaged() == ()
        assert store.collect().bytes == blocks.SIZE


def test_a_damaged_block_is_put_aside_so_that_a_new_capture_heals_it(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", {0: b"content"})
    with Store.open(tmp_path / "store") as store:
        capture(store, disk)
        (block,) = (tmp_path / "store" / "blocks").glob("*/*")
        flip(block)
        assert store.is_whole(FIRST)
        with pytest.raises(StoreDamaged):
            store.materialise(FIRST, tmp_path / "copy", size_gib=1)
        assert not store.is_whole(FIRST)
        capture(store, disk, SECOND)
        store.materialise(FIRST, tmp_path / "copy", size_gib=1)
        assert head(tmp_path / "copy", 7) == b"content"
        assert store.collect().bytes == blocks.SIZE  # what was put aside


def test_what_a_killed_process_left_half_made_is_gone_at_the_next_start(tmp_path: Path) -> None:
    """kill -9 in the middle of a capture: the snapshot never was."""
    pieces = {number * blocks.SIZE: os.urandom(50) for number in range(64)}
    make_disk(tmp_path / "disk", pieces, size=64 * blocks.SIZE)
    script = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from amibuild.local.store import Store\n"
        "def hold(done, total):\n"
        "    print(done, flush=True)\n"
        "    threading.Event().wait()\n"
        "store = Store.open(Path(sys.argv[1]))\n"
        "store.capture(Path(sys.argv[2]), 'snap-0000000000000001a', volume_size_gib=1,\n"
        "              owner='1', progress=hold)\n"
    )
    reading, writing = os.pipe()
    words = [sys.executable, "-c", script, tmp_path / "store", tmp_path / "disk"]
    process = proc.start(
        [str(word) for word in words], stdout=writing, env={"PYTHONPATH": str(ROOT)}
    )
    os.close(writing)
    with os.fdopen(reading) as said:
        assert said.readline().strip() == str(16 * blocks.SIZE)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert any((tmp_path / "store" / "temporary").rglob("*"))
    with Store.open(tmp_path / "store") as store:
        assert store.snapshots() == ()
        assert store.usage().blocks == 0
        assert list((tmp_path / "store" / "temporary").iterdir()) == []


def test_a_list_of_blocks_without_its_record_goes_at_the_next_start(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "store" / "snapshots" / f"{FIRST}.json").unlink()
    with Store.open(tmp_path / "store") as store:
        assert [snapshot.id for snapshot in store.snapshots()] == [SECOND]
        assert store.collect().bytes == blocks.SIZE
    assert not (tmp_path / "store" / "snapshots" / f"{FIRST}.blocks").exists()


@needs_namespaces
def test_a_full_disk_is_said_plainly_and_the_store_goes_on(tmp_path: Path) -> None:
    make_disk(tmp_path / "large", {n * blocks.SIZE: os.urandom(9) for n in range(16)}, size=8 << 20)
    make_disk(tmp_path / "small", {0: b"x"})
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from amibuild.local.store import Store, StoreFull\n"
        "large, small, full = map(Path, sys.argv[1:])\n"
        "store = Store.open(full / 'store')\n"
        "try:\n"
        "    store.capture(large, 'snap-0000000000000001a', volume_size_gib=1, owner='1')\n"
        "except StoreFull as error:\n"
        "    print(error.message, error.hint)\n"
        "store.capture(small, 'snap-0000000000000002b', volume_size_gib=1, owner='1')\n"
        "try:\n"
        "    store.materialise('snap-0000000000000002b', full / 'disk', size_gib=1)\n"
        "    print([snapshot.id for snapshot in store.snapshots()], store.usage().blocks)\n"
        "finally:\n"
        "    store.close()\n"
    )
    full = tmp_path / "full"
    full.mkdir()
    mount = 'mount -t tmpfs -o size=3m none "$1"; shift; exec "$@"'
    words: list[str | Path] = ["sh", "-euc", mount, "sh", full, sys.executable, "-c", script]
    done = private.run(
        [*words, tmp_path / "large", tmp_path / "small", full], env={"PYTHONPATH": str(ROOT)}
    )
    said, then = done.text.splitlines()
    assert said.startswith(f"no space is left for the local target on the disk of {full}/store")
    assert "amibuild local reset" in said
    assert then == f"['{SECOND}'] 1"
