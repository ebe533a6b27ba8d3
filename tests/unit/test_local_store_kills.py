"""kill -9 at random instants of captures, puts, deletions, collections and materialisations: the
store opens, nothing in it is damaged, and every image that it lists is whole."""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.local.records import VERSIONS_KEPT
from amibuild.local.store import ImageRecord, Store
from tests.unit.stored import NOW, parameter

ROOT = Path(__file__).parents[2]
KILLS = 40
SEED = 20261122
BLOCKS = 24
# What one round of the worker says, at least: kills fall anywhere in the first two rounds.
LINES = 40


def content(number: int, block: int) -> bytes:
    """What block `block` of disk `number` begins with: a third is the same on every disk."""
    return f"disk {number if block % 3 else 0}, block {block};".encode()


def work(root: Path, seed: int) -> None:
    """Fills and empties a store until it is killed. Says each thing that it is about to do."""
    choice = random.Random(seed)
    with Store.open(root / "store") as store:
        while True:
            number = choice.randrange(1, 1 << 40)
            disk = root / "worker.raw"
            disk.unlink(missing_ok=True)
            with disk.open("wb") as file:
                file.truncate(BLOCKS << 19)
                for block in range(BLOCKS):
                    file.seek(block << 19)
                    file.write(content(number, block))
            snapshot, ami = f"snap-{number:017x}", f"ami-{number:017x}"
            say("capture")
            store.capture(
                disk,
                snapshot,
                volume_size_gib=1,
                owner="1",
                progress=lambda done, total: say("progress"),
            )
            say("put image")
            store.put_image(image(ami, snapshot, number))
            say("put parameter")
            known = store.parameter("/a/b")
            store.put_parameter(known.changed(ami, NOW) if known else parameter(ami))
            say("materialise")
            copy = root / "worker-copy.raw"
            copy.unlink(missing_ok=True)
            store.materialise(snapshot, copy, size_gib=1)
            if len(store.images()) > 4:
                oldest = choice.choice(store.images())
                say("delete image")
                store.delete_image(oldest.id)
                say("delete snapshot")
                store.delete_snapshot(str(oldest.snapshot_id))
                say("collect")
                store.collect()
            for _ in range(LINES // 8):
                say("and on")


def image(ami: str, snapshot: str, number: int) -> ImageRecord:
    return ImageRecord(
        id=ami,
        name=f"disk-{number}",
        owner="1",
        created=NOW,
        snapshot_id=snapshot,
        volume_size_gib=1,
    )


def say(what: str) -> None:
    os.write(1, f"{what}\n".encode())


def serve(root: Path) -> None:
    """Forks a worker for each line of stdin: the imports are paid for once."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            work(root, int(line))
        say(f"pid {child}")
        os.waitpid(child, 0)
        say("killed")


@contextmanager
def server(root: Path) -> Iterator[proc.Process]:
    program = (
        "import sys\nfrom pathlib import Path\nfrom tests.unit import test_local_store_kills as t\n"
        "t.serve(Path(sys.argv[1]))"
    )
    process = proc.start(
        [sys.executable, "-c", program, root],
        stdin=proc.PIPE,
        stdout=proc.PIPE,
        env={"PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        process.communicate()


def kill_one(process: proc.Process, choice: random.Random) -> str:
    """Lets a worker do a random number of things, and kills it in the next; the last it said."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{choice.randrange(1 << 30)}\n".encode())
    process.stdin.flush()
    left, pid, last = choice.randrange(LINES), 0, ""
    for line in process.stdout:
        said = line.decode().strip()
        if said.startswith("pid "):
            pid = int(said.split()[1])
        elif said == "killed":
            break
        elif left > 0:
            left, last = left - 1, said
        if left == 0 and pid:
            left = -1
            sum(range(choice.randrange(100_000)))  # up to 1 ms: not always right after a line
            os.kill(pid, signal.SIGKILL)
    return last


def check(root: Path, choice: random.Random) -> int:
    """How many images there are; fails where one is not whole."""
    with Store.open(root / "store") as store:
        assert store.damaged() == ()
        assert store.survey().lost == {}
        known = store.parameter("/a/b")
        if known is not None:
            assert len(known.history) == min(known.version, VERSIONS_KEPT) - 1
        images = store.images()
        for one in choice.sample(images, min(2, len(images))):
            copy = root / "copy.raw"
            assert one.snapshot_id is not None
            store.materialise(one.snapshot_id, copy, size_gib=1)
            number = int(one.name.removeprefix("disk-"))
            with copy.open("rb") as file:
                for block in range(BLOCKS):
                    file.seek(block << 19)
                    expected = content(number, block)
                    assert file.read(len(expected) + 1) == expected + b"\0"
            copy.unlink()
        return len(images)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: what is written outlives a killed process there just
    as well, and a sync takes nothing, where on a disk it waits for what everybody else wrote."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="amibuild-test-", dir=shared) as name:
        yield Path(name)


def test_a_killed_endpoints_store_opens_and_every_image_in_it_is_whole(memory: Path) -> None:
    choice = random.Random(SEED)
    last: set[str] = set()
    most = 0
    with server(memory) as process:
        for _ in range(KILLS):
            last.add(kill_one(process, choice))
            most = max(most, check(memory, choice))
    # It really was killed in the middle of things, and there was something to lose.
    assert {"progress", "and on"} <= last
    assert most >= 4
    with Store.open(memory / "store") as store:
        assert store.collect().refused == ""
        assert store.survey().garbage_bytes == 0
    assert check(memory, choice) > 0
