"""`local reset`: everything or, while somebody needs it, nothing; and a killed one is finished."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

from amibuild.cli.local.ending import forget
from amibuild.cli.local.gc import collect
from amibuild.endpoint import open_endpoint, tidy
from amibuild.errors import HostError
from amibuild.local.store import Store, StoreBusy


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A data folder's `local`, with two stores and a cached base image."""
    folder = tmp_path / "data/local"
    for store in stores(folder):
        Store.open(store).close()
    tree = folder / "base/making-x/tree"
    tree.mkdir(parents=True)
    (tree / "file").touch()
    for name in ("debian-13-0123456789abcdef.raw", "debian-13-0123456789abcdef.json", "lock"):
        (folder / "base" / name).touch()
    return folder


@pytest.fixture
def maker(local: Path) -> Iterator[None]:
    """Somebody who makes a base image."""
    with (local / "base/lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def stores(folder: Path) -> tuple[Path, Path]:
    return folder / "store", folder / "none/store"


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def begun_to_remove(folder: Path) -> Path:
    """What a reset leaves that is killed between the renaming and the removal."""
    store = stores(folder)[1]
    (store / "blocks/00").mkdir()
    (store / "blocks/00/block").write_bytes(bytes(8192))
    return store.rename(store.with_name("store.removed"))


def test_a_reset_removes_the_stores_and_the_base_image_where_asked_for(local: Path) -> None:
    assert forget(local, base=False) == list(stores(local))
    assert (local / "base/debian-13-0123456789abcdef.raw").exists()
    assert forget(local, base=True) == [local / "base"]
    assert forget(local, base=True) == []


@pytest.mark.usefixtures("maker")
def test_a_reset_is_refused_while_somebody_makes_a_base_image(local: Path) -> None:
    before = files(local)
    with pytest.raises(HostError) as refused:
        forget(local, base=True)
    assert str(local / "base") in str(refused.value)
    assert refused.value.hint
    assert files(local) == before
    assert forget(local, base=False) == list(stores(local))


def test_who_waits_to_make_a_base_image_has_the_same_lock_after_a_reset(local: Path) -> None:
    """Were its file removed, the next one would lock another, and both make the image."""
    with (local / "base/lock").open("a") as waiting:
        assert forget(local, base=True)[-1] == local / "base"
        fcntl.flock(waiting, fcntl.LOCK_EX)
        with pytest.raises(HostError):
            forget(local, base=True)


def test_a_reset_without_a_base_image_removes_the_rest(local: Path, tmp_path: Path) -> None:
    (local / "base").rename(tmp_path / "elsewhere")
    assert forget(local, base=True) == list(stores(local))


def test_a_reset_is_refused_while_a_store_is_open(local: Path) -> None:
    with Store.open(stores(local)[0]), pytest.raises(StoreBusy):
        forget(local, base=True)
    assert all(store.exists() for store in stores(local))
    assert (local / "base/debian-13-0123456789abcdef.raw").exists()


def test_a_store_that_is_a_link_is_nobodys_to_remove(local: Path, tmp_path: Path) -> None:
    store, there = stores(local)[0], tmp_path / "big"
    store.rename(there)
    store.symlink_to(there)
    with pytest.raises(HostError, match="is a link"):
        forget(local, base=False)
    assert store.is_symlink()
    assert (there / "format").exists()
    store.rename(store.with_name("store.removed"))  # by an older amibuild
    assert tidy(local.parent)
    assert not store.with_name("store.removed").is_symlink()
    assert (there / "format").exists()


def test_a_store_of_a_newer_amibuild_can_be_removed(local: Path) -> None:
    """As its refusal says."""
    (stores(local)[0] / "format").write_text("amibuild store, format 999\n")
    assert stores(local)[0] in forget(local, base=False)


def test_a_killed_reset_is_finished_by_the_next_tidying(local: Path) -> None:
    left, (_, store) = begun_to_remove(local), stores(local)
    assert "a store that a reset was about to remove" in tidy(local.parent)
    assert not left.exists()
    assert not store.exists()
    assert tidy(local.parent) == ()


def test_a_killed_reset_is_finished_by_the_next_endpoint(local: Path) -> None:
    left = begun_to_remove(local)
    with open_endpoint(machine="none", data=local.parent):
        assert not left.exists()


def test_a_killed_reset_is_finished_by_the_next_collection(local: Path) -> None:
    left = begun_to_remove(local)
    counted = collect(local.parent, dry_run=True)
    assert counted["left_bytes"] >= 8192
    assert left.exists()
    assert collect(local.parent, dry_run=False)["left_bytes"] == counted["left_bytes"]
    assert not left.exists()


def test_a_killed_reset_is_finished_by_the_next_one(local: Path) -> None:
    left = begun_to_remove(local)
    assert forget(local, base=False) == [stores(local)[0]]
    assert not left.exists()
