"""The base image in the store: found, taken from the cache, kept when a newer one comes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from amibuild.errors import HostError
from amibuild.local import base, debian
from amibuild.local.store import ImageRecord, Store
from tests.unit.stored import FIRST, capture, make_disk

MADE = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A folder as the maker leaves it, with a disk that says it is the base image's."""
    folder = tmp_path / "base"
    folder.mkdir()
    disk = folder / f"debian-13-{debian.definition()[:16]}.raw"
    make_disk(disk, {0: b"bootable", 5 << 20: b"files"})
    with Store.open(tmp_path / "other") as store:
        blocks_sha256 = capture(store, disk).blocks_sha256
    said = base.Cached(made=MADE, blocks_sha256=blocks_sha256)
    disk.with_suffix(".json").write_text(said.model_dump_json())
    return folder


def ensure(root: Path, cached: Path) -> tuple[ImageRecord, list[str]]:
    told: list[str] = []
    with Store.open(root) as store:
        return base.ensure_base(store, cached, progress=told.append), told


def test_an_empty_store_gets_the_cached_base_image(tmp_path: Path, cached: Path) -> None:
    image, told = ensure(tmp_path / "store", cached)
    assert told == []
    assert image.name == "debian-13-amd64-20261120-local"
    assert image.owner == "136693071363"
    assert image.imds_support == "v2.0"
    assert image.facts == {
        "platform_agent": "qemu-guest-agent",
        "made": "2026-11-20",
        "definition": debian.definition(),
    }
    with Store.open(tmp_path / "store") as store:
        (snapshot,) = store.snapshots()
        assert (snapshot.id, snapshot.owner) == (image.snapshot_id, image.owner)
        named = store.parameter("/aws/service/debian/release/13/latest/amd64")
        assert named is not None
        assert (named.value, named.version, named.data_type) == (image.id, 1, "aws:ec2:image")


def test_asking_again_changes_nothing(tmp_path: Path, cached: Path) -> None:
    first, _ = ensure(tmp_path / "store", cached)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.json")}
    again, _ = ensure(tmp_path / "store", tmp_path / "no cache needed")
    assert again == first
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*.json")}
    assert not (tmp_path / "no cache needed").exists()


def test_the_same_disk_is_the_same_ami_in_every_store(tmp_path: Path, cached: Path) -> None:
    first, _ = ensure(tmp_path / "store", cached)
    second, _ = ensure(tmp_path / "emptied", cached)
    assert first.id == second.id


def test_an_image_of_an_older_definition_stays_when_a_newer_comes(
    tmp_path: Path, cached: Path
) -> None:
    old = ImageRecord(
        id="ami-00000000000000000",
        name="debian-13-amd64-20261120-local",
        owner=debian.OWNER,
        created=MADE,
        snapshot_id=FIRST,
        volume_size_gib=2,
        facts={"definition": "of yesterday"},
    )
    with Store.open(tmp_path / "store") as store:
        store.capture(
            make_disk(tmp_path / "disk", {0: b"old"}),
            FIRST,
            volume_size_gib=2,
            owner=debian.OWNER,
        )
        store.put_image(old)
    image, _ = ensure(tmp_path / "store", cached)
    assert image.name == "debian-13-amd64-20261120-local-2"
    with Store.open(tmp_path / "store") as store:
        assert store.images() == (old, image)
        assert store.is_whole(FIRST)


def test_a_base_image_with_a_missing_block_is_made_whole_again(
    tmp_path: Path, cached: Path
) -> None:
    first, _ = ensure(tmp_path / "store", cached)
    next((tmp_path / "store" / "blocks").glob("*/*")).unlink()
    again, _ = ensure(tmp_path / "store", cached)
    assert (again.id, again.name) == (first.id, first.name)
    with Store.open(tmp_path / "store") as store:
        assert again.snapshot_id is not None
        assert store.is_whole(again.snapshot_id)
        assert [snapshot.id for snapshot in store.snapshots()] == [again.snapshot_id]
        named = store.parameter(debian.PARAMETER)
        assert named is not None
        assert named.version == 1


def test_the_definition_follows_from_what_the_image_consists_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = debian.definition()
    assert debian.definition() == before
    monkeypatch.setattr(debian, "PACKAGES", (*debian.PACKAGES, "nano"))
    assert debian.definition() != before


def test_a_host_that_can_not_make_it_is_told_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match=r"without .*mmdebstrap") as refused:
        ensure(tmp_path / "store", tmp_path / "base")
    assert refused.value.hint == "amibuild doctor"
    assert [path.name for path in (tmp_path / "base").iterdir()] == ["lock"]
