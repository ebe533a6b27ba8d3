"""Giving back disk space: what nothing names, whoever asks, and never what an image needs."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amibuild import proc
from amibuild.cli.local.gc import collect
from amibuild.endpoint import open_endpoint, start_detached
from amibuild.local import blocks, survey
from amibuild.local.settings import Settings
from amibuild.local.store import Collected, Store
from amibuild.shutdown import stop
from tests.unit.stored import AMI, FIRST, SECOND, capture, head, image, make_disk

NONE = Settings(machine="none")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder whose store has an image, and four blocks of a snapshot that was deleted."""
    with Store.open(tmp_path / "data/local/none/store") as store:
        needed = {n * blocks.SIZE: os.urandom(50) for n in range(2)}
        capture(store, make_disk(tmp_path / "disk", needed))
        store.put_image(image())
        more = {n * blocks.SIZE: os.urandom(50) for n in range(4)}
        capture(store, make_disk(tmp_path / "disk", more), SECOND)
        store.delete_snapshot(SECOND)
    return tmp_path / "data"


def gc(data: Path, *, dry_run: bool = False) -> dict[str, Any]:
    return collect(data, dry_run=dry_run)


def left(data: Path) -> int:
    return len(list((data / "local/none/store/blocks").glob("*/*")))


def test_without_an_endpoint_it_frees_what_no_snapshot_names(data: Path) -> None:
    assert gc(data, dry_run=True)["block_bytes"] == 4 * blocks.SIZE
    assert left(data) == 6
    freed = gc(data)
    assert (freed["blocks"], freed["block_bytes"]) == (4, 4 * blocks.SIZE)
    assert (freed["dry_run"], freed["refused"], freed["damaged"]) == (False, (), ())
    assert left(data) == 2
    assert gc(data)["blocks"] == 0
    with Store.open(data / "local/none/store") as store:
        assert store.is_whole(FIRST)


def test_a_running_endpoint_does_it_itself(data: Path) -> None:
    with open_endpoint(machine="none", data=data):
        assert gc(data, dry_run=True)["blocks"] == 4
        assert left(data) == 6
        assert gc(data)["blocks"] == 4
        assert left(data) == 2


def test_what_killed_endpoints_left_is_counted_and_goes(data: Path) -> None:
    root = data / "local/none"
    (root / "store/temporary/half").mkdir()
    for path in (root / "store/temporary/half/block", root / "machines/volumes/vol-1.raw"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(8192))
    counted = gc(data, dry_run=True)
    assert (counted["left_files"], counted["left_bytes"]) == (2, 2 * 8192)
    assert (root / "store/temporary/half/block").exists()
    assert gc(data)["left_files"] == 2
    assert not (root / "machines").exists()
    assert list((root / "store/temporary").iterdir()) == []


def test_nothing_is_freed_while_a_snapshot_is_damaged_and_that_is_said(data: Path) -> None:
    record = data / f"local/none/store/snapshots/{FIRST}.json"
    os.truncate(record, 100)
    freed = gc(data)
    assert freed["blocks"] == 0
    assert str(record) in freed["refused"][0]
    assert str(record) in freed["damaged"][0]
    assert left(data) == 6


def test_it_says_in_words_or_in_json_what_it_freed(data: Path) -> None:
    def say(*words: str) -> str:
        command = [sys.executable, "-m", "amibuild.cli.main", "local", "gc", *words]
        return proc.run(command, env={"AMIBUILD_DATA_DIR": str(data)}).text

    assert json.loads(say("--dry-run", "--json"))["block_bytes"] == 4 * blocks.SIZE
    assert say() == "freed 2.0 MiB in 4 blocks\n"


def test_where_nothing_is_there_is_nothing_to_free(tmp_path: Path) -> None:
    assert collect(tmp_path, dry_run=False)["blocks"] == 0
    assert not (tmp_path / "local").exists()


def test_it_waits_for_an_endpoint_that_is_about_to_serve_or_to_end(data: Path) -> None:
    """Held by a process that serves nothing: asked again until it does, or lets go."""
    start_detached(settings=NONE, data=data)
    (data / "local/endpoint.json").rename(data / "local/hidden")
    found: list[dict[str, Any]] = []
    asker = threading.Thread(target=lambda: found.append(collect(data, dry_run=False)))
    asker.start()
    asker.join(0.5)
    assert found == []
    (data / "local/hidden").rename(data / "local/endpoint.json")
    asker.join(30)
    assert found[0]["blocks"] == 4
    assert stop(data)


SEEN = survey.Survey(lost={}, block_bytes=10 << 30, garbage_bytes=0)


@pytest.mark.parametrize(
    ("garbage", "total", "worth"),
    [
        (3 << 30, 10 << 30, True),
        (1 << 30, 10 << 30, False),  # under a fifth
        (200 << 20, 300 << 20, False),  # small change
        (256 << 20, 300 << 20, True),
    ],
)
def test_an_endpoint_collects_by_itself_once_it_is_worth_it(
    garbage: int, total: int, worth: bool
) -> None:
    seen = replace(SEEN, garbage_bytes=garbage, block_bytes=total)
    assert seen.worth_collecting is worth


def test_the_start_of_an_endpoint_frees_what_is_worth_it(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = data / "local/none/store"
    with Store.open(store) as opened:
        assert opened.collect_if_much() == Collected()  # 2 MiB are not
    assert left(data) == 6
    monkeypatch.setattr(survey, "LEAST_GARBAGE", blocks.SIZE)
    with Store.open(store) as opened:
        assert opened.collect_if_much().blocks == 4
        opened.materialise(FIRST, data / "copy", size_gib=1)
    assert head(data / "copy", 4) != bytes(4)


@pytest.mark.parametrize(
    ("harm", "why"),
    [(lambda path: path.unlink(), "missing"), (lambda path: os.truncate(path, 9), "cut")],
)
def test_a_survey_finds_the_snapshot_whose_block_is_gone(
    data: Path, harm: Callable[[Path], None], why: str
) -> None:
    with Store.open(data / "local/none/store") as store:
        assert store.survey().lost == {}
        assert store.survey().garbage_bytes == 4 * blocks.SIZE
        listed = (data / f"local/none/store/snapshots/{FIRST}.blocks").read_text().split()[1]
        path = data / "local/none/store/blocks" / listed[:2] / listed
        harm(path)
        (lost,) = store.survey().lost.items()
        assert lost[0] == FIRST
        assert (lost[1].path, why in lost[1].message) == (path, True)
        assert AMI in [record.id for record in store.images()]
