"""Secrets reach a script as files, and stand in no command, log or error on the way."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from amibuild import secret
from amibuild.communicator import shell
from amibuild.communicator.base import CommandResult, Discreet, RemoteJob
from amibuild.communicator.ssm import SsmCommunicator
from amibuild.errors import CommandFailed
from amibuild.secret import MASK, Secret
from amibuild.wait import silent
from tests.unit.fakes import FakeClock, ShellSsm

VALUE = "s3cr3t 'of' \"a\" $game\nand its second line\n"


@pytest.fixture
def ssm(tmp_path: Path) -> Iterator[ShellSsm]:
    yield ShellSsm(tmp_path / "run")
    secret.forget_all()


def run(ssm: ShellSsm, script: str) -> CommandResult:
    secrets = {"token": Secret("token", VALUE), "other": Secret("other", "another-secret-value")}
    job = RemoteJob("step", script, 60, secrets=secrets)
    return SsmCommunicator(ssm, "i-1", clock=FakeClock()).run(job, silent)


def test_a_script_reads_them_from_files_that_only_root_can_read(ssm: ShellSsm) -> None:
    done = run(
        ssm,
        'cat "$AMIBUILD_SECRETS/token" >"$AMIBUILD_RESULT"; stat -c "%n %a" "$AMIBUILD_SECRETS"/*; '
        'stat -c %a "$AMIBUILD_SECRETS"; ls',
    )
    assert done.exit_code == 0, done.log
    assert done.result.decode() == VALUE
    assert [line.rpartition("/")[2] for line in done.log.splitlines()[:3]] == [
        "other 400",
        "token 400",
        "700",
    ]
    assert "cms" not in done.log


@pytest.mark.parametrize("ending", ["true", "exit 3", "kill -TERM $$"])
def test_nothing_of_them_stays_whatever_the_step_does(
    ssm: ShellSsm, tmp_path: Path, ending: str
) -> None:
    run(ssm, ending)
    left = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert left
    for path in left:
        assert b"s3cr3t" not in path.read_bytes()
        assert path.name not in {"key.pem", "secrets.cms", "all.tar"}
    assert not (tmp_path / "run/step/secrets").exists()


def test_no_command_has_them(ssm: ShellSsm) -> None:
    run(ssm, "true")
    token, other = Secret("token", VALUE), Secret("other", "another-secret-value")
    for script in ssm.sent:
        texts = [script.encode(), *decoded(script)]
        assert not any(one.is_in(text) for one in (token, other) for text in texts)


def decoded(script: str) -> Iterator[bytes]:
    """What travels in it as base64."""
    for part in script.split("<<'AMIBUILD'")[1:]:
        body = part.split("\n", 1)[1].split("\nAMIBUILD")[0]
        yield base64.b64decode(body)


def test_what_it_says_goes_back_for_our_eyes_only(ssm: ShellSsm) -> None:
    done = run(
        ssm, 'cat "$AMIBUILD_SECRETS/other"; cat "$AMIBUILD_SECRETS/token" >"$AMIBUILD_RESULT"'
    )
    assert done.result.decode() == VALUE
    said = [invocation.stdout + invocation.stderr for invocation in ssm.done.values()]
    packed = base64.b64decode(said[-1].splitlines()[1])
    with pytest.raises(shell.Damaged):
        shell.open_reply(packed)
    token, other = Secret("token", VALUE), Secret("other", "another-secret-value")
    assert not any(
        one.is_in(text.encode()) for one in (token, other) for text in (*said, str(packed))
    )


def test_a_later_job_may_say_what_an_earlier_one_has_written(ssm: ShellSsm) -> None:
    other = Secret("other", "another-secret-value")
    machine = Discreet(SsmCommunicator(ssm, "i-1", clock=FakeClock()))
    script = f"echo {other.reveal()} | tee $AMIBUILD_RESULT; ls; exit 3"
    done = machine.run(RemoteJob("later", script, 60), silent)
    assert (done.exit_code, done.result.decode()) == (3, "another-secret-value\n")
    assert done.log == f"{MASK}\nrun.sh\n"
    (command,) = ssm.done.values()
    reply = command.stdout.splitlines()[1]
    with pytest.raises(shell.Damaged):
        shell.open_reply(base64.b64decode(reply))
    assert not other.is_in((command.stdout + command.stderr).encode())


def test_what_a_script_prints_of_them_is_masked_in_its_log(ssm: ShellSsm) -> None:
    done = run(ssm, 'cat "$AMIBUILD_SECRETS/other"; base64 "$AMIBUILD_SECRETS/other"; exit 1')
    assert "another" not in done.log
    assert base64.b64encode(b"another-secret-value").decode() not in done.log
    assert done.log.count(MASK) == 2


def test_a_machine_without_openssl_is_told(ssm: ShellSsm, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = ssm.root.parent / "tools"
    tools.mkdir()
    for name in ("sh", "mkdir", "rm", "cat", "flock"):
        (tools / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(CommandFailed) as caught:
        run(ssm, "true")
    assert caught.value.tail[-1].startswith("secrets need openssl on the machine")
