"""`amibuild local up` with its options, and the verbs that look into one machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from amibuild import proc
from amibuild.wait import Look, until
from tests.contract.place import Place, new_place
from tests.terminal import read_to_end

SCRIPT = [
    {"match": "uname", "stdout": "Linux\n"},
    {"match": "hangs", "hang": True},
    {"match": "fails", "exit_code": 7, "stderr": "it fails\n"},
]


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """An endpoint whose machines answer by SCRIPT, with one machine."""
    place = new_place(tmp_path_factory.mktemp("scripted"))
    (place.folder / "script.json").write_text(json.dumps(SCRIPT))
    place.run("local", "up", "--machine", "none", "--script", "script.json")
    place.launch()
    yield place
    place.run("local", "down")


@pytest.fixture(scope="module")
def instance(scripted: Place) -> str:
    found: str = scripted.ask("local", "status")["instances"][0]["id"]
    return found


def test_a_port_that_is_taken_is_an_error_that_leaves_nothing(here: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = here.run("local", "up", "--machine", "none", "--port", port, check=False)
        assert done.exit_code == 1
        assert f"port {port} of 127.0.0.1 can't be had: Address already in use" in (
            done.stderr.decode()
        )
        assert done.stdout == b""
    assert here.ask("local", "status")["running"] is False
    # Nothing holds the store: the next one starts, on the port that is free now.
    assert here.ask("local", "up", "--machine", "none", "--port", port)["url"].endswith(port)


def test_an_endpoint_with_other_options_is_not_taken_for_the_one_asked_for(here: Place) -> None:
    here.run("local", "up", "--machine", "none", "--latency", "run=0")
    asked = ("--machine", "none", "--latency", "run=9", "--call-log", "calls")
    done = here.run("local", "up", *asked, check=False)
    assert done.exit_code == 1
    story = done.stderr.decode()
    assert "was started with --latency run=0, not run=9; no --call-log" in story
    assert "hint: amibuild local down" in story
    again = here.run("local", "up")
    assert "it runs already, with --machine none --latency run=0" in again.stderr.decode()


def test_options_that_mean_nothing_are_usage_errors_and_start_nothing(here: Place) -> None:
    for words in (
        ("--latency", "run=1"),
        ("--machine", "none", "--fault", "nonsense"),
    ):
        done = here.run("local", "up", *words, check=False)
        assert (done.exit_code, done.stdout) == (2, b""), words
    assert here.ask("local", "status")["running"] is False


def test_a_fault_and_the_log_of_calls_reach_the_endpoint(here: Place) -> None:
    fault = "DescribeVpcs:1=UnauthorizedOperation"
    here.run("local", "up", "--machine", "none", "--fault", fault, "--call-log", "calls.jsonl")
    with pytest.raises(ClientError, match="UnauthorizedOperation"):
        here.ec2().describe_vpcs()
    lines = [json.loads(line) for line in (here.folder / "calls.jsonl").read_text().splitlines()]
    assert ("DescribeVpcs", "UnauthorizedOperation") in [
        (line["operation"], line["error"]) for line in lines
    ]


def test_status_tells_what_machines_and_store_take(scripted: Place, instance: str) -> None:
    status = scripted.ask("local", "status")
    (one,) = [i for i in status["instances"] if i["id"] == instance]
    assert one["disk_bytes"] == 2 << 30
    assert one["disk_allocated_bytes"] < 1 << 20
    assert status["totals"]["instances"] == 1
    assert status["totals"]["disk_bytes"] == one["disk_bytes"]
    assert status["store"]["images"] == status["store"]["snapshots"] == 1
    assert status["store"]["path"] == str(scripted.folder / "data/local/none/store")
    assert status["settings"]["--machine"] == "none"
    text = scripted.run("local", "status").text
    assert " of 2.0 GiB" in text
    assert "images 1, snapshots 1, parameters 1" in text


def test_status_tells_what_is_kept_while_nothing_runs(here: Place) -> None:
    assert here.ask("local", "status")["store"] is None
    from amibuild.local.store import Store

    Store.open(here.folder / "data/local/store").close()
    assert here.ask("local", "status")["store"]["images"] == 0


@pytest.mark.parametrize("verb", ["shell", "logs"])
def test_an_unknown_instance_is_told_with_those_there_are(
    scripted: Place, instance: str, verb: str
) -> None:
    done = scripted.run("local", verb, "i-0123456789abcdef0", check=False)
    assert done.exit_code == 2
    assert f"hint: there is {instance} (running)" in done.stderr.decode()


def test_without_an_endpoint_there_is_no_machine(here: Place) -> None:
    done = here.run("local", "shell", "i-0123456789abcdef0", check=False)
    assert done.exit_code == 1
    assert "hint: amibuild local up" in done.stderr.decode()


def test_the_shell_runs_what_is_on_stdin_and_ends_with_its_exit_code(
    scripted: Place, instance: str
) -> None:
    done = scripted.run("local", "shell", instance, stdin=b"uname\n")
    assert done.stdout == b"Linux\n"
    failed = scripted.run("local", "shell", instance, stdin=b"fails\n", check=False)
    assert (failed.exit_code, failed.stderr) == (7, b"it fails\n")


@pytest.mark.parametrize("verb", ["shell", "logs"])
@pytest.mark.parametrize("name", ["", "i", "i-", "latest"])
def test_a_variable_that_is_not_set_names_no_machine(
    scripted: Place, instance: str, verb: str, name: str
) -> None:
    done = scripted.run("local", verb, name, check=False)
    assert done.exit_code == 2
    assert "is no instance id" in done.stderr.decode()


@pytest.mark.timeout(120)
def test_ctrl_c_ends_a_line_and_not_the_session(scripted: Place, instance: str) -> None:
    with shell_on_terminal(scripted, instance) as (near, process):
        read_prompts(near, 1)
        os.write(near, b"hangs\n")
        # A signal before the line was read would end nothing, and the line would run after it.
        until(lambda: asks(process.pid), what="the line to be at work", timeout_s=60)
        process.send_signal(signal.SIGINT)
        read_prompts(near, 1)
        os.write(near, b"uname\nexit\n")
        assert b"Linux\r\n" in read_to_end(near)
        assert process.wait(30) == 0


@contextmanager
def shell_on_terminal(
    scripted: Place, instance: str
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The near end of its terminal, for the test to close, and its process."""
    near, far = os.openpty()
    words = [sys.executable, "-m", "amibuild.cli.main", "local", "shell", instance]
    env = {"AMIBUILD_DATA_DIR": str(scripted.folder / "data"), "HOME": str(scripted.folder)}
    process = proc.start(words, stdin=far, stdout=far, stderr=far, env=env)
    os.close(far)
    try:
        yield near, process
    finally:
        process.kill()
        process.wait()


def asks(pid: int) -> Look[bool]:
    """Whether it waits for an answer: at its prompt it is connected to nothing."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed by now
            if str(link.readlink()).startswith("socket:"):
                return Look("connected", True)
    return Look("connected to nothing")


def read_prompts(near: int, count: int) -> None:
    said = b""
    while said.count(b"# ") < count:
        said += os.read(near, 4096)


def test_the_shell_runs_a_command_with_its_own_options(scripted: Place, instance: str) -> None:
    assert scripted.run("local", "shell", instance[:8], "--", "uname", "-a").stdout == b"Linux\n"


def test_on_a_terminal_without_ssh_each_line_goes_to_the_agent(
    scripted: Place, instance: str
) -> None:
    with shell_on_terminal(scripted, instance) as (near, process):
        os.write(near, b"uname\nfails\nexit\n")
        said = read_to_end(near)
        assert process.wait(30) == 7
    assert b"no terminal, since no key of this machine is here" in said
    assert b"Linux\r\n" in said
    assert b"it fails\r\n" in said


def test_logs_are_the_console_and_where_the_drivers_own_is(scripted: Place, instance: str) -> None:
    told = scripted.ask("local", "logs", instance)
    assert told["console"] == f"no machine behind {instance}\n"
    assert told["log"].endswith(f"{instance}/run/supervisor.log")
    assert scripted.run("local", "logs", instance).text == told["console"]


def test_logs_can_be_followed_to_the_end_of_the_machine(scripted: Place) -> None:
    from amibuild.control import announced
    from amibuild.guests import Guest, console

    scripted.run("local", "up")
    known = announced(scripted.folder / "data")
    assert known is not None
    instance = scripted.launch()
    guest = Guest(
        id=instance,
        state="running",
        driver="none",
        ready=True,
        address=None,
        ssh_port=None,
        public_key=None,
        folder=scripted.folder,
        pids=(),
        endpoint=known,
    )
    followed = console(guest, follow=True)
    assert next(followed) == f"no machine behind {instance}\n".encode()
    scripted.ec2().terminate_instances(InstanceIds=[instance])
    assert b"".join(followed) == b""
