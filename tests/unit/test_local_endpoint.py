"""The endpoint as a process: it starts when it is needed, and ends with whoever needs it."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.aws.session import Cloud
from amibuild.control import Silent
from amibuild.endpoint import (
    LocalEndpoint,
    data_dir,
    open_endpoint,
    start_detached,
    status,
    tidy,
)
from amibuild.errors import AwsError, HostError, UsageError
from amibuild.local.settings import Settings
from amibuild.local.store import Store
from amibuild.shutdown import stop
from amibuild.wait import Look, until

NONE = Settings(machine="none")

HOLDER = """
import sys, time
from pathlib import Path
from amibuild.endpoint import open_endpoint
with open_endpoint(machine="none", data=Path(sys.argv[1])) as endpoint:
    print(endpoint.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    stop(tmp_path, force=True)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEndpoint]:
    """For tests that only ask it something."""
    with open_endpoint(machine="none", data=tmp_path_factory.mktemp("shared")) as endpoint:
        yield endpoint


def alive(pid: int) -> bool:
    return not proc.has_ended(pid, None)


def wait_until_gone(pid: int) -> None:
    def look() -> Look[bool]:
        return Look("alive") if alive(pid) else Look("gone", True)

    until(look, what=f"the end of process {pid}", timeout_s=30)


def holder(data: Path) -> tuple[proc.Process, int]:
    """Another process that has an endpoint open, and the endpoint's process."""
    words = [sys.executable, "-c", HOLDER, str(data)]
    process = proc.start(words, stdin=proc.PIPE, stdout=proc.PIPE)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def let_go(process: proc.Process) -> None:
    process.communicate()
    process.wait(30)


def test_it_ends_with_the_context_that_started_it(data: Path) -> None:
    with open_endpoint(machine="none", data=data) as endpoint:
        assert endpoint.owned
        assert alive(endpoint.pid)
        assert status(data) is not None
        assert (data / "local/endpoint.json").exists()
    assert not alive(endpoint.pid)
    assert status(data) is None
    assert not (data / "local/endpoint.json").exists()
    Store.open(data / "local/none/store").close()


def test_its_file_and_its_status_tell_the_same(data: Path) -> None:
    with open_endpoint(machine="none", data=data) as endpoint:
        file = json.loads((data / "local/endpoint.json").read_text())
        seen = status(data)
        assert seen is not None
        keys = ("pid", "port", "machine", "started")
        assert [file[k] for k in keys] == [seen[k] for k in keys]
        assert (file["pid"], file["url"]) == (endpoint.pid, endpoint.url)
        assert seen["instances"] == []


def test_a_second_user_joins_and_does_not_end_it(data: Path) -> None:
    with open_endpoint(machine="none", data=data) as first:
        with open_endpoint(data=data) as second:
            assert (second.url, second.owned) == (first.url, False)
        assert status(data) is not None


def test_it_stays_while_somebody_who_joined_needs_it(data: Path) -> None:
    process, pid = holder(data)
    with open_endpoint(data=data) as joined:
        assert (joined.pid, joined.owned) == (pid, False)
        let_go(process)
        assert status(data) is not None
    wait_until_gone(pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_when_its_owner_is_killed(data: Path, number: signal.Signals) -> None:
    process, pid = holder(data)
    process.send_signal(number)
    let_go(process)
    wait_until_gone(pid)
    Store.open(data / "local/none/store").close()


def test_sigterm_ends_it(data: Path) -> None:
    endpoint = start_detached(settings=NONE, data=data)
    os.kill(endpoint.pid, signal.SIGTERM)
    wait_until_gone(endpoint.pid)
    assert not (data / "local/endpoint.json").exists()


def test_what_a_killed_endpoint_left_is_no_hindrance(data: Path) -> None:
    killed = start_detached(settings=NONE, data=data)
    os.kill(killed.pid, signal.SIGKILL)
    wait_until_gone(killed.pid)
    assert (data / "local/endpoint.json").exists()
    (data / "local/none/machines/i-left").mkdir()
    assert status(data) is None
    with open_endpoint(machine="none", data=data) as endpoint:
        assert endpoint.pid != killed.pid
        assert not (data / "local/none/machines/i-left").exists()


def test_a_call_to_a_killed_one_is_not_tried_again(data: Path) -> None:
    """Ten tries for each of a bake's removals would keep it for minutes."""
    endpoint = start_detached(settings=NONE, data=data)
    cloud = Cloud(region="us-east-1", access=endpoint)
    assert cloud.ec2.networks(None)
    os.kill(endpoint.pid, signal.SIGKILL)
    wait_until_gone(endpoint.pid)
    with pytest.raises(AwsError) as refused:
        cloud.ec2.networks(None)
    assert refused.value.code == "EndpointGone"
    assert not refused.value.answered


def test_the_next_look_removes_what_a_killed_one_left(data: Path) -> None:
    killed = start_detached(settings=NONE, data=data)
    (data / "local/none/machines/i-left").mkdir()
    (data / "local/none/store/temporary/half").touch()
    assert tidy(data) == ()
    os.kill(killed.pid, signal.SIGKILL)
    wait_until_gone(killed.pid)
    assert status(data) is None
    assert tidy(data) == ("files of i-left",)
    assert not (data / "local/endpoint.json").exists()
    assert not (data / "local/none/machines").exists()
    assert list((data / "local/none/store/temporary").iterdir()) == []
    assert tidy(data) == ()


def test_a_half_made_base_image_goes_once_nobody_makes_one(data: Path) -> None:
    base = data / "local/base"
    (base / "making-x/tree").mkdir(parents=True)
    with (base / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert tidy(data) == ()
    assert tidy(data) == ("a half-made base image, making-x",)
    assert [path.name for path in base.iterdir()] == ["lock"]


def test_a_dead_ones_file_does_not_lead_to_another_on_its_port(data: Path, tmp_path: Path) -> None:
    """Its port may be taken by the endpoint of another folder, which is nobody's to stop here."""
    dead, living = tmp_path / "dead", start_detached(settings=NONE, data=data)
    facts = json.loads((data / "local" / "endpoint.json").read_text())
    ended = proc.start([sys.executable, "-c", ""])
    ended.wait()
    (dead / "local").mkdir(parents=True)
    (dead / "local" / "endpoint.json").write_text(json.dumps({**facts, "pid": ended.pid}))
    assert status(dead) is None
    assert not stop(dead)
    assert alive(living.pid)


def test_a_detached_one_ends_when_its_folder_is_removed(data: Path) -> None:
    """As when a test's temporary folder goes: nobody could find it, or stop it."""
    endpoint = start_detached(settings=NONE, data=data)
    shutil.rmtree(data / "local")
    wait_until_gone(endpoint.pid)


def test_a_detached_one_stays_until_it_is_stopped(data: Path) -> None:
    endpoint = start_detached(settings=NONE, data=data)
    assert alive(endpoint.pid)
    assert start_detached(data=data).pid == endpoint.pid
    assert stop(data)
    assert not alive(endpoint.pid)
    assert not stop(data)


def test_it_is_not_stopped_under_somebody_who_uses_it(data: Path) -> None:
    process, pid = holder(data)
    try:
        with pytest.raises(UsageError, match="uses the endpoint"):
            stop(data)
        assert alive(pid)
        assert stop(data, force=True)
    finally:
        let_go(process)


def test_local_up_keeps_an_endpoint_that_a_bake_has_started(data: Path) -> None:
    process, pid = holder(data)
    assert start_detached(data=data).pid == pid
    let_go(process)
    assert status(data) is not None


def fail_with(data: Path, *, keep: bool) -> LocalEndpoint:
    with (
        pytest.raises(KeyError),
        open_endpoint(machine="none", data=data, keep=lambda: keep) as endpoint,
    ):
        raise KeyError
    return endpoint


def test_a_failure_leaves_it_only_where_that_was_asked(data: Path) -> None:
    """`--on-error keep`: the machines stay, and so must what they run under."""
    assert not alive(fail_with(data, keep=False).pid)
    kept = fail_with(data, keep=True)
    found = status(data)
    assert found is not None
    assert (found["pid"], found["kept"]) == (kept.pid, True)


def test_a_failure_beside_the_process_that_started_it_leaves_it_too(data: Path) -> None:
    process, pid = holder(data)
    assert fail_with(data, keep=True).pid == pid
    let_go(process)
    found = status(data)
    assert found is not None
    assert (found["pid"], found["kept"]) == (pid, True)


def test_a_success_ends_it_even_with_keep(data: Path) -> None:
    with open_endpoint(machine="none", data=data, keep=lambda: True) as endpoint:
        pass
    assert not alive(endpoint.pid)


def test_another_kind_of_machine_is_not_joined(data: Path) -> None:
    with (
        open_endpoint(machine="none", data=data),
        pytest.raises(HostError, match="started with --machine none") as refused,
        open_endpoint(machine="qemu", data=data),
    ):
        pass
    assert refused.value.hint == "amibuild local down"


def test_what_refuses_the_start_is_told_with_its_hint(data: Path) -> None:
    store = data / "local/none/store"
    store.mkdir(parents=True)
    (store / "format").write_text("amibuild store, format 999\n")
    with (
        pytest.raises(HostError, match="newer amibuild") as refused,
        open_endpoint(machine="none", data=data),
    ):
        pass
    assert refused.value.hint is not None
    assert status(data) is None


def test_a_store_that_is_open_elsewhere_is_waited_for(data: Path) -> None:
    """Another bake is about to serve it, or to let go of it."""
    store = Store.open(data / "local/none/store")
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        store.close()

    with open_endpoint(machine="none", data=data, progress=tell) as endpoint:
        assert endpoint.owned
    assert told == [f"waiting for process {os.getpid()}, which has the local target's store open"]


def test_a_wrong_argument_is_told_without_starting_anything(data: Path) -> None:
    words = [sys.executable, "-m", "amibuild.local.endpoint", "--data", str(data)]
    done = proc.run([*words, "--machine", "none", "--fault", "nonsense"], check=False)
    assert done.exit_code == 2
    assert "nonsense" in json.loads(done.text)["error"]


def test_it_takes_nothing_from_the_shells_account(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile that does not exist breaks every boto3 client, moto's own included."""
    monkeypatch.setenv("AWS_PROFILE", "does-not-exist")
    monkeypatch.setenv("MOTO_ACCOUNT_ID", "999999999999")
    with open_endpoint(machine="none", data=data):
        assert status(data) is not None


@pytest.mark.parametrize("headers", [{}, {"X-Amibuild": "1"}])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "stop"), ("POST", "gc"), ("GET", "status"), ("GET", "join")]
)
def test_only_its_user_may_ask_its_page(
    shared: LocalEndpoint, method: str, path: str, headers: dict[str, str]
) -> None:
    """Web pages, other users of this host and programs in machines reach its port, too."""
    port = int(shared.url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, f"/amibuild/{path}", headers=headers)
    assert connection.getresponse().status == 403
    connection.close()
    assert alive(shared.pid)


def test_what_opens_it_is_for_its_user_only(data: Path) -> None:
    with open_endpoint(machine="none", data=data) as first:
        for name in ("endpoint.json", "access-key.json"):
            assert (data / "local" / name).stat().st_mode & 0o777 == 0o600
    with open_endpoint(machine="none", data=data) as second:
        # An environment that was exported goes on to work.
        assert second.access_key_id == first.access_key_id
    assert len(first.access_key_id) == 20


@pytest.fixture
def stopped(data: Path) -> Iterator[int]:
    """An endpoint whose process hangs."""
    pid = start_detached(settings=NONE, data=data).pid
    os.kill(pid, signal.SIGSTOP)
    yield pid
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)


def test_one_that_hangs_is_not_taken_for_one_that_is_gone(
    data: Path, stopped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amibuild.control.ASK_S", 0.5)
    for asked in (status, stop, start_detached):
        with pytest.raises(Silent, match=f"process {stopped}") as refused:
            asked(data=data)
        assert "--force" in str(refused.value.hint)
    assert stop(data, force=True)
    assert not alive(stopped)
    assert not stop(data)


def test_the_data_folder_is_the_variables_or_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AMIBUILD_DATA_DIR", str(tmp_path))
    assert data_dir() == tmp_path
    monkeypatch.delenv("AMIBUILD_DATA_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert data_dir() == tmp_path / "share/amibuild"
