"""The local target's store: what goes in comes out, once, and outlives the process."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from amibuild.local import blocks
from amibuild.local.store import (
    GIB,
    DeviceRecord,
    SnapshotInUse,
    Store,
    StoreBusy,
    StoreTooNew,
    UnknownSnapshot,
)
from tests.unit.stored import AMI, FIRST, NOW, SECOND, capture, head, image, make_disk, parameter


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


PIECES = {
    0: b"first",
    blocks.SIZE - 3: b"across the border",
    5 * blocks.SIZE: os.urandom(blocks.SIZE),
    (8 << 20) - 4: b"last",
}


def test_a_captured_disk_comes_back_byte_for_byte(store: Store, tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", PIECES)
    record = capture(store, disk)
    store.materialise(FIRST, tmp_path / "copy", size_gib=1)
    copy = head(tmp_path / "copy", 8 << 20)
    assert copy == disk.read_bytes()
    assert (record.blocks, record.state) == (4, "completed")
    assert (tmp_path / "copy").stat().st_size == GIB


def test_holes_and_zeros_take_no_space(store: Store, tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", {0: b"x", blocks.SIZE: bytes(4 << 20)}, size=GIB)
    assert capture(store, disk).data_bytes == blocks.SIZE
    store.materialise(FIRST, tmp_path / "copy", size_gib=1)
    assert (tmp_path / "copy").stat().st_blocks * 512 < 2 * blocks.SIZE


def test_an_empty_disk_is_a_snapshot_without_blocks(store: Store, tmp_path: Path) -> None:
    assert capture(store, make_disk(tmp_path / "disk", {})).blocks == 0
    store.materialise(FIRST, tmp_path / "copy", size_gib=1)
    assert (tmp_path / "copy").stat().st_blocks == 0


def test_a_disk_that_ends_inside_a_block_is_padded(store: Store, tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", {0: b"x" * 100}, size=100)
    capture(store, disk)
    store.materialise(FIRST, tmp_path / "copy", size_gib=1)
    assert head(tmp_path / "copy", 200) == b"x" * 100 + bytes(100)


def test_the_same_content_is_kept_once(store: Store, tmp_path: Path) -> None:
    twice = os.urandom(blocks.SIZE)
    disk = make_disk(tmp_path / "disk", {0: twice, 3 * blocks.SIZE: twice})
    first, second = capture(store, disk), capture(store, disk, SECOND)
    assert (first.blocks, store.usage().blocks) == (2, 1)
    assert first.blocks_sha256 == second.blocks_sha256


def test_two_captures_at_once_do_not_disturb_each_other(store: Store, tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", {n * blocks.SIZE: os.urandom(99) for n in range(16)})
    ids = [f"snap-{number:017x}" for number in range(6)]
    threads = [threading.Thread(target=capture, args=(store, disk, name)) for name in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {record.id for record in store.snapshots()} == set(ids)
    store.materialise(ids[-1], tmp_path / "copy", size_gib=1)
    assert head(tmp_path / "copy", 8 << 20) == disk.read_bytes()


def test_progress_ends_with_all_bytes_done(store: Store, tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", {n * blocks.SIZE: b"x" for n in range(16)})
    heard: list[tuple[int, int]] = []
    store.capture(
        disk,
        FIRST,
        volume_size_gib=1,
        owner="1",
        progress=lambda done, total: heard.append((done, total)),
    )
    assert heard[-1] == (8 << 20, 8 << 20)


def test_records_outlive_the_process(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        captured = capture(store, make_disk(tmp_path / "disk", PIECES))
        store.put_image(image())
        store.put_parameter(parameter())
    with Store.open(tmp_path / "store") as store:
        assert store.snapshots() == (captured,)
        assert store.images() == (image(),)
        assert store.parameters() == (parameter(),)
        assert store.parameter("/a/b") == parameter()
        assert store.damaged() == ()
        store.delete_image(AMI)
        store.delete_parameter("/a/b")
    with Store.open(tmp_path / "store") as store:
        assert (store.images(), store.parameters()) == ((), ())


def test_a_second_opener_is_told_who_has_it(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreBusy) as refused:
        Store.open(tmp_path / "store")
    assert refused.value.pid == os.getpid()
    store.close()
    Store.open(tmp_path / "store").close()


def test_a_newer_store_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    (tmp_path / "format").write_text("amibuild store, format 3\n")
    with pytest.raises(StoreTooNew, match="its format is 3, this one knows 2"):
        Store.open(tmp_path)
    assert (tmp_path / "format").read_text() == "amibuild store, format 3\n"
    (tmp_path / "format").write_text("amibuild store, format 2\n")
    Store.open(tmp_path).close()  # the refusal let go of the lock


def test_a_snapshot_stays_while_an_image_uses_it(store: Store, tmp_path: Path) -> None:
    capture(store, make_disk(tmp_path / "disk", PIECES))
    store.put_image(image())
    with pytest.raises(SnapshotInUse) as refused:
        store.delete_snapshot(FIRST)
    assert refused.value.images == (AMI,)
    assert store.is_whole(FIRST)
    store.delete_image(AMI)
    store.delete_snapshot(FIRST)
    assert store.snapshots() == ()
    assert not store.is_whole(FIRST)


def test_collect_frees_what_no_snapshot_names(store: Store, tmp_path: Path) -> None:
    shared = os.urandom(blocks.SIZE)
    capture(store, make_disk(tmp_path / "a", {0: shared, blocks.SIZE: b"only a"}))
    capture(store, make_disk(tmp_path / "b", {0: shared}), SECOND)
    assert store.collect().bytes == 0
    store.delete_snapshot(FIRST)
    assert store.collect().bytes == blocks.SIZE
    store.materialise(SECOND, tmp_path / "copy", size_gib=1)
    assert head(tmp_path / "copy", blocks.SIZE) == shared


def test_collect_waits_for_a_capture(store: Store, tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", PIECES)
    capturing, go_on = threading.Event(), threading.Event()

    def hold(_done: int, _total: int) -> None:
        capturing.set()
        go_on.wait(10)

    arguments = {"volume_size_gib": 1, "owner": "1", "progress": hold}
    capturer = threading.Thread(target=store.capture, args=(disk, FIRST), kwargs=arguments)
    freed: list[int] = []
    collector = threading.Thread(target=lambda: freed.append(store.collect().bytes))
    capturer.start()
    assert capturing.wait(10)
    collector.start()
    collector.join(0.2)
    assert freed == []
    go_on.set()
    capturer.join()
    collector.join()
    assert freed == [0]
    assert store.is_whole(FIRST)


def test_what_is_said_about_a_snapshot_can_change(store: Store, tmp_path: Path) -> None:
    record = capture(store, make_disk(tmp_path / "disk", PIECES))
    store.put_snapshot(record.model_copy(update={"tags": {"a": "b"}}))
    assert store.snapshots()[0].tags == {"a": "b"}
    with pytest.raises(UnknownSnapshot):
        store.put_snapshot(record.model_copy(update={"id": SECOND}))


def test_an_unknown_snapshot_leaves_no_disk(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UnknownSnapshot):
        store.materialise(FIRST, tmp_path / "copy", size_gib=1)
    assert not (tmp_path / "copy").exists()


def test_a_parameter_keeps_its_last_hundred_versions() -> None:
    record = parameter("value 1")
    for number in range(2, 151):
        record = record.changed(f"value {number}", NOW)
    assert (record.version, record.value) == (150, "value 150")
    assert [old.version for old in record.history] == list(range(51, 150))
    assert record.history[-1].value == "value 149"


@pytest.mark.parametrize("name", ["../evil", "snap-", "snap-0000000000000001A", "ami-12345678/.."])
def test_an_id_can_not_leave_its_folder(name: str) -> None:
    with pytest.raises(ValidationError):
        image().model_validate({**image().model_dump(), "id": name})


def test_the_store_is_for_its_user_only(tmp_path: Path) -> None:
    Store.open(tmp_path / "store").close()
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700


def test_a_copy_of_a_snapshot_takes_no_space(store: Store, tmp_path: Path) -> None:
    original = capture(store, make_disk(tmp_path / "disk", PIECES))
    before = store.usage()
    said = original.model_copy(update={"id": SECOND, "region": "eu-west-1", "encrypted": True})
    copy = store.copy_snapshot(FIRST, said)
    assert (copy.id, copy.region, copy.encrypted) == (SECOND, "eu-west-1", True)
    assert store.usage().block_bytes == before.block_bytes
    store.delete_snapshot(FIRST)
    store.collect()
    store.materialise(SECOND, tmp_path / "again", size_gib=1)
    assert head(tmp_path / "again", 8 << 20) == (tmp_path / "disk").read_bytes()


def test_what_is_not_there_is_not_copied(store: Store, tmp_path: Path) -> None:
    original = capture(store, make_disk(tmp_path / "disk", PIECES))
    store.delete_snapshot(FIRST)
    with pytest.raises(UnknownSnapshot):
        store.copy_snapshot(FIRST, original.model_copy(update={"id": SECOND}))
    assert store.snapshots() == ()


def test_a_snapshot_stays_while_an_image_has_it_on_another_device(
    store: Store, tmp_path: Path
) -> None:
    capture(store, make_disk(tmp_path / "disk", PIECES))
    capture(store, make_disk(tmp_path / "data", PIECES), SECOND)
    data = DeviceRecord(name="/dev/sdf", snapshot_id=SECOND, size_gib=1)
    store.put_image(image().model_copy(update={"devices": (data,)}))
    with pytest.raises(SnapshotInUse):
        store.delete_snapshot(SECOND)


# The fields of a record then.
FORMAT_1 = {
    "images": "id name description owner created architecture boot_mode ena imds_support "
    "root_device snapshot_id volume_size_gib tags source_instance facts state",
    "snapshots": "id volume_size_gib description started tags owner state blocks data_bytes "
    "blocks_sha256",
}


def test_records_of_format_1_are_read(tmp_path: Path) -> None:
    """As the version before wrote them: without the fields that format 2 added."""
    with Store.open(tmp_path / "store") as store:
        capture(store, make_disk(tmp_path / "disk", PIECES))
        store.put_image(image())
    for folder, fields in FORMAT_1.items():
        (path,) = (tmp_path / "store" / folder).glob("*.json")
        new = json.loads(path.read_text())["record"]
        old = {field: new[field] for field in fields.split()}
        text = json.dumps(old, sort_keys=True, separators=(",", ":"))
        checksum = hashlib.sha256(text.encode()).hexdigest()
        path.write_text(json.dumps({"format": 1, "sha256": checksum, "record": old}))
    (tmp_path / "store" / "format").write_text("amibuild store, format 1\n")
    with Store.open(tmp_path / "store") as store:
        assert store.damaged() == ()
        assert store.images() == (image(),)
        assert store.snapshots()[0].region is None
        store.materialise(FIRST, tmp_path / "again", size_gib=1)
    assert (tmp_path / "store" / "format").read_text() == "amibuild store, format 2\n"
