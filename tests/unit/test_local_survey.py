"""A look at all of the store while others work in it: never what was at no time so.

Each test stops the look between two of its reads, until the other's work is done or waits for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from amibuild.local import blocks
from amibuild.local.durable import StoreDamaged
from amibuild.local.store import Store, StoreUsage
from amibuild.local.survey import Survey
from tests.unit.stored import FIRST, SECOND, capture, make_disk

KEPT, MORE = 2, 4
TIMEOUT_S = 30


class TellingLock:
    """A lock that says so when somebody has to wait for it."""

    def __init__(self, waits: threading.Event) -> None:
        self._lock = threading.RLock()
        self._waits = waits

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._waits.set()
            self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()


class Meanwhile:
    """Runs `work` in a thread once a look has listed a folder, and goes on with the look when the
    work is done, or waits for the look."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self._at_rest = threading.Event()
        self._list = os.scandir
        self._folder = Path()
        self._work = threading.Thread()
        monkeypatch.setattr(store, "_changing", TellingLock(self._at_rest))
        monkeypatch.setattr(os, "scandir", self._scandir)

    def run(self, work: Callable[[], object], *, at: Path) -> None:
        def told() -> None:
            try:
                work()
            finally:
                self._at_rest.set()

        self._folder, self._work = at, threading.Thread(target=told)

    def join(self) -> None:
        self._work.join(TIMEOUT_S)
        assert not self._work.is_alive()

    def _scandir(self, path: Any) -> Any:
        if isinstance(path, int) or Path(path) != self._folder or self._work.ident:
            return self._list(path)
        with self._list(path) as found:
            entries = list(found)
        self._work.start()
        assert self._at_rest.wait(TIMEOUT_S)
        return nullcontext(entries)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Two snapshots, of blocks of their own."""
    with Store.open(tmp_path / "store") as opened:
        capture(opened, disk(tmp_path, KEPT, b"kept"))
        capture(opened, disk(tmp_path, MORE, b"more"), SECOND)
        yield opened


@pytest.fixture
def meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    return Meanwhile(store, monkeypatch)


def disk(folder: Path, count: int, content: bytes) -> Path:
    pieces = {n * blocks.SIZE: content + bytes([n]) for n in range(count)}
    return make_disk(folder / "disk", pieces)


def block(folder: Path, snapshot_id: str) -> Path:
    """The file of its first."""
    listed = (folder / f"store/snapshots/{snapshot_id}.blocks").read_text()
    digest = listed.split()[1]
    return folder / "store/blocks" / digest[:2] / digest


def whole(count: int) -> Survey:
    return Survey({}, count * blocks.SIZE, 0)


@pytest.mark.parametrize("look", [Store.survey, Store.usage], ids=["survey", "usage"])
def test_a_look_while_blocks_are_collected(
    store: Store, meanwhile: Meanwhile, tmp_path: Path, look: Callable[[Store], Survey | StoreUsage]
) -> None:
    """By a collection that knows already which to keep: it waits for no look, nor a look for it.

    Once it was a FileNotFoundError, and so an HTTP 500 of `local status`.
    """
    folder = block(tmp_path, SECOND).parent
    store.delete_snapshot(SECOND)
    named = store._named_blocks()
    meanwhile.run(lambda: store._blocks.collect(lambda: named), at=folder)
    seen = look(store)
    meanwhile.join()
    assert KEPT * blocks.SIZE <= seen.block_bytes <= (KEPT + MORE) * blocks.SIZE
    assert look(store).block_bytes == KEPT * blocks.SIZE
    assert store.survey() == whole(KEPT)


def test_a_survey_while_a_snapshot_and_its_blocks_go(
    store: Store, meanwhile: Meanwhile, tmp_path: Path
) -> None:
    def forget() -> None:
        store.delete_snapshot(SECOND)
        store.collect()

    meanwhile.run(forget, at=block(tmp_path, SECOND).parent)
    assert store.survey() == whole(KEPT + MORE)
    meanwhile.join()
    assert store.survey() == whole(KEPT)


def test_a_survey_while_a_capture_ends(store: Store, meanwhile: Meanwhile, tmp_path: Path) -> None:
    """Its record was read, and its blocks were not: a whole snapshot looked lost."""
    new = disk(tmp_path, 8, b"new")
    meanwhile.run(
        lambda: capture(store, new, "snap-0000000000000003c"), at=tmp_path / "store/blocks"
    )
    assert store.survey().lost == {}
    meanwhile.join()
    assert store.survey() == whole(KEPT + MORE + 8)


def test_a_survey_while_a_damaged_block_is_put_aside(
    store: Store, meanwhile: Meanwhile, tmp_path: Path
) -> None:
    """By a launch that has read its list already: the file goes while its size is asked for."""
    path = block(tmp_path, FIRST)
    path.write_bytes(bytes(blocks.SIZE))
    listed = blocks.BlockList.unpack((tmp_path / f"store/snapshots/{FIRST}.blocks").read_bytes())

    def launch() -> None:
        with pytest.raises(StoreDamaged), store._blocks.in_use():
            store._blocks.materialise(listed, tmp_path / "copy", 1 << 30)

    meanwhile.run(launch, at=path.parent)
    (lost,) = store.survey().lost.items()
    assert (lost[0], lost[1].path) == (FIRST, path)
    meanwhile.join()
