"""`local shell` and `local logs` with a real machine, and what the status says of it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from amibuild import proc
from tests.local.clients import Here
from tests.local.scenario import amibuild, command
from tests.terminal import read_to_end

pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def instance(here: Here) -> Iterator[str]:
    yield here.launch()


def piped(here: Here, instance: str, script: str) -> proc.Finished:
    words = command("local", "shell", instance)
    return proc.run(words, cwd=here.folder, stdin=script.encode(), check=False, timeout_s=120)


def test_commands_on_stdin_run_as_root_and_the_last_exit_code_is_the_verbs(
    here: Here, instance: str
) -> None:
    done = piped(here, instance, "id -u\necho wrong >&2\nexit 7\n")
    assert (done.exit_code, done.text) == (7, "0\n")
    assert "wrong" in done.stderr.decode().splitlines()


def test_a_command_gets_its_words_as_they_are(here: Here, instance: str) -> None:
    assert here.shell(instance, "printf", "%s|", "a b", "$HOME", "-c") == "a b|$HOME|-c|"


def test_on_a_terminal_it_is_a_login_shell_with_one_of_its_own(here: Here, instance: str) -> None:
    near, far = os.openpty()
    words = ["env", f"--chdir={here.folder}", *command("local", "shell", instance)]
    process = proc.start(words, stdin=far, stdout=far, stderr=far)
    os.close(far)
    os.write(near, b"tty; shopt -q login_shell && echo is-login; exit 5\n")
    said = read_to_end(near)
    assert process.wait(30) == 5
    lines = said.decode().splitlines()
    assert any(line.startswith("/dev/pts/") or "l/dev/pts/" in line for line in lines), lines
    assert "is-login" in lines


def test_it_leaves_no_trace_in_the_image_that_may_be_made(here: Here, instance: str) -> None:
    seen = piped(here, instance, "ls -A /root; systemctl list-units --no-legend 'amibuild-shell*'")
    units = [line for line in seen.text.splitlines() if "amibuild-shell" in line]
    assert ".bash_history" not in seen.text
    assert len(units) == 1  # its own


def test_the_console_is_there_and_the_drivers_log(here: Here, instance: str) -> None:
    logs = amibuild(here.folder, "local", "logs", instance)
    assert "Debian GNU/Linux 13" in logs.stdout
    assert "supervisor.log" in logs.story


def test_status_tells_disk_and_memory_of_a_real_machine(here: Here, instance: str) -> None:
    status = amibuild(here.folder, "local", "status", "--json").json
    (one,) = [i for i in status["instances"] if i["id"] == instance]
    assert (one["driver"], one["state"], one["ssh_port"]) == ("nspawn", "running", 22)
    assert 50 << 20 < one["disk_allocated_bytes"] < one["disk_bytes"] == 2 << 30
    assert one["memory_bytes"] > 10 << 20
    assert status["totals"]["memory_bytes"] >= one["memory_bytes"]
