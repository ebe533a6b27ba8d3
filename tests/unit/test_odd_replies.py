"""Whatever comes back in place of a job's reply is a failure that says so, in bounded room."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amibuild.aws.ssm import Invocation
from amibuild.communicator import shell
from amibuild.communicator.base import RemoteJob
from amibuild.communicator.ssm import SsmCommunicator
from amibuild.errors import CommandFailed
from amibuild.wait import silent
from amibuild.wording import failure_lines
from tests.unit.archives import member
from tests.unit.fakes import FakeClock, ShellSsm

BOUNDED = settings(max_examples=150, deadline=None, derandomize=True)


class Saying(ShellSsm):
    """A machine that answers each command with one text, whatever it was."""

    def __init__(self, *stdout: str, stderr: str = "") -> None:
        self.said = list(stdout)
        self.stderr = stderr
        self.asked = 0

    def send(self, instance_id: str, script: str, *, comment: str, timeout_s: int) -> str:
        self.asked += 1
        assert self.asked < 50, "it is asked without an end"
        return "command"

    def invocation(self, command_id: str, instance_id: str) -> Invocation:
        said = self.said.pop(0) if len(self.said) > 1 else self.said[0]
        return Invocation("Success", "Success", 0, said, self.stderr)

    def cancel(self, command_id: str, instance_id: str) -> None:
        """Nothing runs."""


def collected(ssm: ShellSsm) -> str | None:
    """The failure, where there is one."""
    job = RemoteJob("os", "true", 60)
    try:
        SsmCommunicator(ssm, "i-1", clock=FakeClock()).run(job, silent)
    except CommandFailed as error:
        assert all(line.text.isprintable() for line in failure_lines(error))
        return error.reason
    return None


def reply(packed: bytes, *, size: int | None = None, body: str | None = None) -> str:
    sha256 = hashlib.sha256(packed).hexdigest()
    first = base64.b64encode(packed).decode() if body is None else body
    return f"amibuild-reply 0 {len(packed) if size is None else size} {sha256}\n{first}"


def packed(*members: tarfile.TarInfo, **files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            tar.addfile(member(name, size=len(content)), io.BytesIO(content))
        for one in members:
            tar.addfile(one)
    return gzip.compress(buffer.getvalue(), mtime=0)


WHOLE = packed(log=b"out\n", result=b"data")


def test_a_whole_reply_is_read() -> None:
    assert shell.open_reply(WHOLE) == ("out\n", b"data")
    assert collected(Saying(reply(WHOLE))) is None


@BOUNDED
@given(st.text())
def test_any_text_is_no_reply(stdout: str) -> None:
    assert collected(Saying(stdout, stderr=stdout)) is not None


@BOUNDED
@given(st.binary(max_size=400))
def test_any_bytes_that_a_machine_packed_are_told(raw: bytes) -> None:
    """Their checksum is right: the machine itself wrote them, on a full disk for example."""
    reason = collected(Saying(reply(raw)))
    assert reason is not None
    assert reason.startswith("its log came back damaged")


@BOUNDED
@given(cut=st.integers(0, len(WHOLE) - 1))
def test_a_reply_that_a_full_disk_cut_is_told(cut: int) -> None:
    assert collected(Saying(reply(WHOLE[:cut]))) is not None


@BOUNDED
@given(at=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_a_reply_with_a_flipped_bit_is_told(at: int, bit: int) -> None:
    flipped = bytearray(WHOLE)
    flipped[at] ^= 1 << bit
    changed = reply(WHOLE, body=base64.b64encode(flipped).decode())
    assert "damaged" in str(collected(Saying(changed)))
    # With a checksum of its own it is at most another log.
    collected(Saying(reply(bytes(flipped))))


@pytest.mark.parametrize("body", ["A", "AAAAA", "####", "é" * 4, "=" * 8, "\0\0\0\0"])
def test_what_is_no_base64_is_told(body: str) -> None:
    assert "damaged" in str(collected(Saying(reply(WHOLE, body=body))))
    with pytest.raises(shell.Damaged):
        shell.read_piece(body)


@pytest.mark.parametrize("size", [1 << 40, int("9" * 4000)])
def test_a_reply_that_claims_to_be_huge_is_not_fetched(size: int) -> None:
    ssm = Saying(reply(WHOLE, size=size))
    assert "more than" in str(collected(ssm))
    assert ssm.asked == 1


def test_a_reply_that_ends_before_its_size_is_told() -> None:
    body = base64.b64encode(WHOLE[:-9]).decode()
    assert "damaged" in str(collected(Saying(reply(WHOLE, body=body), "")))


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "REPLY_LIMIT_BYTES", 100_000)
    assert "more than" in str(collected(Saying(reply(packed(result=bytes(200_000))))))
    twice = gzip.compress(gzip.compress(bytes(200_000)))
    assert "damaged" in str(collected(Saying(reply(twice))))


@pytest.mark.parametrize("name", ["log", "result"])
def test_links_folders_and_devices_are_no_log(name: str) -> None:
    for kind, link in (
        (tarfile.SYMTYPE, name),
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, name),
        (tarfile.DIRTYPE, ""),
        (tarfile.CHRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ):
        assert shell.open_reply(packed(member(name, kind, link))) == ("", b"")


def test_a_log_that_is_no_text_is_shown_without_harm() -> None:
    log, result = shell.open_reply(packed(log=bytes(range(256)), result=b"\xff"))
    assert log.startswith("\0\x01")
    assert result == b"\xff"


def test_the_end_of_a_log_obeys_no_terminal() -> None:
    error = CommandFailed(
        what="os",
        exit_code=1,
        reason="ended",
        tail=["\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "a\tb"],
    )
    assert [line.text for line in failure_lines(error)][2:] == [
        "  | red",
        "  | \ufffd]0;title\ufffd",
        "  | a       b",
    ]
