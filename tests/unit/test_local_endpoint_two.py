"""Several processes that want one store at once: one has it, the others join it or are told whose
it is, also when the first only starts, ends, or was killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.control import announced
from amibuild.endpoint import start_detached, status
from amibuild.errors import HostError, UsageError
from amibuild.local.announcement import announce, forget_dead, withdraw
from amibuild.local.control import Lifetime
from amibuild.local.durable import holder
from amibuild.local.settings import Settings
from amibuild.local.store import Store, StoreBusy
from amibuild.shutdown import stop
from amibuild.wait import Look, until

NONE = Settings(machine="none")
JOINER = """
import sys
from pathlib import Path
from amibuild.endpoint import open_endpoint
with open_endpoint(machine="none", data=Path(sys.argv[1])) as endpoint:
    print(endpoint.pid, endpoint.owned, flush=True)
    sys.stdin.read()
"""
HOLDER = """
import sys
from pathlib import Path
from amibuild.local.store import Store
with Store.open(Path(sys.argv[1])):
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    stop(tmp_path)


def store_of(data: Path) -> Path:
    return data / "local/none/store"


@contextmanager
def running(program: str, folder: Path) -> Iterator[proc.Process]:
    words = [sys.executable, "-c", program, str(folder)]
    process = proc.start(words, stdin=proc.PIPE, stdout=proc.PIPE)
    try:
        yield process
    finally:
        process.communicate()


def said(process: proc.Process) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().decode().split()


def raw_endpoint(data: Path) -> proc.Finished:
    """The endpoint's own program, which joins nobody."""
    words = [sys.executable, "-m", "amibuild.local.endpoint", "--data", str(data)]
    return proc.run([*words, "--machine", "none", "--detached"], check=False)


def test_a_second_endpoint_is_refused_with_the_first_ones_pid(data: Path) -> None:
    first = start_detached(settings=NONE, data=data)
    refused = raw_endpoint(data)
    assert refused.exit_code == 1
    answer = json.loads(refused.text.splitlines()[-1])
    assert answer["busy"] == first.pid
    assert f"in use by process {first.pid}" in answer["error"]
    found = status(data)
    assert found is not None
    assert found["pid"] == first.pid  # and it goes on, with its own file


def test_one_with_other_machines_does_not_take_its_place(data: Path) -> None:
    """Its store is another, and so is that store's lock."""
    first = start_detached(settings=NONE, data=data)
    with pytest.raises(HostError, match=f"process {first.pid}"):
        announce(data / "local", {"pid": os.getpid()})
    withdraw(data / "local")  # this is not the one that announced itself
    forget_dead(data / "local")
    known = announced(data)
    assert known is not None
    assert known.pid == first.pid


def test_of_many_that_start_at_once_one_serves_and_the_others_join_it(data: Path) -> None:
    with (
        running(JOINER, data) as first,
        running(JOINER, data) as second,
        running(JOINER, data) as third,
    ):
        answers = [said(process) for process in (first, second, third)]
        assert len({pid for pid, _ in answers}) == 1
        assert sorted(owned for _, owned in answers) == ["False", "False", "True"]
        found = status(data)
        assert found is not None
        assert str(found["pid"]) == answers[0][0]


def test_one_that_starts_while_the_last_ends_gets_the_store_after_it(data: Path) -> None:
    first = start_detached(settings=NONE, data=data)
    os.kill(first.pid, signal.SIGTERM)
    with running(JOINER, data) as late:
        pid, owned = said(late)
        assert (int(pid) != first.pid, owned) == (True, "True")
        with pytest.raises(StoreBusy) as busy:
            Store.open(store_of(data))
        assert busy.value.pid == int(pid)


@pytest.mark.parametrize("program", [HOLDER, JOINER])
def test_a_holder_that_was_killed_holds_nothing(data: Path, program: str) -> None:
    folder = store_of(data) if program is HOLDER else data
    with running(program, folder) as first:
        answer = said(first)
        with pytest.raises(StoreBusy) as busy:
            Store.open(store_of(data))
        holder = first.pid if program is HOLDER else int(answer[0])
        assert busy.value.pid == holder
        os.kill(holder, signal.SIGKILL)
        if program is HOLDER:
            first.wait()
        with running(JOINER, data) as second:
            pid, owned = said(second)
            assert (int(pid) != holder, owned) == (True, "True")


def test_who_has_the_store_is_told_without_touching_it(data: Path) -> None:
    folder = store_of(data)
    assert holder(folder) is None
    with running(HOLDER, folder) as first:
        said(first)
        assert holder(folder) == first.pid
        with pytest.raises(StoreBusy):
            Store.open(folder)
        first.kill()
        first.wait()
        assert holder(folder) is None
    Store.open(folder).close()
    assert holder(folder) is None


def test_a_number_that_is_anothers_by_now_holds_nothing(data: Path) -> None:
    """As after a power cut, or in a container, where numbers come again at once."""
    start_detached(settings=NONE, data=data)
    stop(data)
    program = "import sys; print(flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", program, "amibuild.toml"]
    other = proc.start(words, stdin=proc.PIPE, stdout=proc.PIPE)
    try:
        said(other)
        (store_of(data) / "lock").write_text(f"{other.pid} 1".ljust(31) + "\n")
        assert holder(store_of(data)) is None
        facts = {"pid": other.pid, "began": 1, "port": 1, "machine": "none", "settings": {}}
        keys = {"access_key_id": "x", "secret_access_key": "x"}
        (data / "local/endpoint.json").write_text(json.dumps({**facts, **keys}))
        assert status(data) is None
        assert not stop(data, force=True)
        found = start_detached(settings=NONE, data=data)
        assert found.pid != other.pid
        assert other.poll() is None
    finally:
        other.communicate()


def test_who_comes_too_late_does_not_join(data: Path) -> None:
    lifetime = Lifetime(owned=True, serving=True)
    assert lifetime.join()
    lifetime.leave()
    lifetime.owner_gone()
    assert not lifetime.join()


def test_a_lock_of_a_store_that_was_moved_away_keeps_nobody_out(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with Store.open(root):
        root.rename(tmp_path / "gone")
        with Store.open(root), pytest.raises(StoreBusy):
            Store.open(root)


def test_one_that_starts_is_ended_by_force_only(data: Path) -> None:
    """It has the lock, and may be at the base image for a minute."""
    with starting(data) as process:
        with pytest.raises(UsageError, match=f"process {process.pid}"):
            stop(data)
        assert stop(data, force=True)
    assert not stop(data)


@contextmanager
def starting(data: Path) -> Iterator[proc.Process]:
    """An endpoint that has its store open and stays where it makes the base image."""
    disk = data / "local/none/empty.raw"
    disk.parent.mkdir(parents=True)
    os.mkfifo(disk)  # opening it waits for somebody who reads it
    words = [sys.executable, "-m", "amibuild.local.endpoint", "--data", str(data)]
    process = proc.start([*words, "--machine", "none", "--detached"])
    try:
        await_lock(data, process.pid)
        yield process
    finally:
        process.kill()
        process.wait()
        disk.unlink(missing_ok=True)


def await_lock(data: Path, pid: int) -> None:
    lock = store_of(data) / "lock"

    def look() -> Look[bool]:
        said = lock.read_text().split() if lock.exists() else []
        return Look("starting", said[:1] == [str(pid)] or None)

    until(look, what="the lock", timeout_s=30)


def test_one_that_was_killed_while_it_started_is_no_hindrance(data: Path) -> None:
    """It has the lock, and no file yet that says where it listens."""
    with starting(data):
        pass
    endpoint = start_detached(settings=NONE, data=data)
    found = status(data)
    assert found is not None
    assert (found["pid"], found["store"]["damaged"]) == (endpoint.pid, [])
