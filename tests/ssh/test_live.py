"""A command and a terminal on a machine, as they go on, with OpenSSH's own sshd at the far end."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from amibuild.cli.raw import raw
from amibuild.communicator.ssh_link import Link, Place
from amibuild.communicator.ssh_live import NOBODY_READS, Live, Terminal
from amibuild.errors import CommandFailed, Interrupted
from amibuild.recipe.ssh import Ssh
from amibuild.wait import Look, SystemClock, until
from tests.local.tcp_proxy import Proxy
from tests.ssh.sshd import ORDINARY, Sshd, needs_sshd, needs_sudo, sshd

pytestmark = needs_sshd
SAID_S = 20


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as found:
        yield found


@pytest.fixture
def proxy(at: Sshd) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", at.port) as proxy:
        yield proxy


@pytest.fixture(params=["root", pytest.param(ORDINARY, marks=needs_sudo)])
def live(at: Sshd, proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[Live]:
    place = Place("127.0.0.1", proxy.port, Ssh(user=request.param))
    with closing(Live(Link(place, at.identity, SystemClock()))) as live:
        yield live


root_alone = pytest.mark.parametrize("live", ["root"], indirect=True)


@dataclass
class Heard:
    """What came, and what is done at the first of it."""

    then: Callable[[], bool] = lambda: True
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)

    def out(self, chunk: bytes) -> bool:
        self.stdout.extend(chunk)
        return self.then()

    def err(self, chunk: bytes) -> bool:
        self.stderr.extend(chunk)
        return True

    def run(self, live: Live, script: str, *, timeout_s: float = 60) -> int:
        return live.run(script.encode(), timeout_s=timeout_s, stdout=self.out, stderr=self.err)


def test_output_and_errors_come_apart_and_the_exit_code_with_them(live: Live) -> None:
    heard = Heard()
    assert heard.run(live, r"printf '\377\000x'; echo oh >&2; exit 7") == 7
    assert (bytes(heard.stdout), bytes(heard.stderr)) == (b"\xff\x00x", b"oh\n")


def test_it_is_root_at_home_with_nothing_on_stdin_and_no_trace_of_the_way(live: Live) -> None:
    heard = Heard()
    heard.run(live, "cat; id -u; pwd; echo $HOME $HISTFILE; env | grep -c 'SUDO_\\|SSH_'")
    assert heard.stdout.decode().splitlines() == ["0", "/root", "/root /dev/null", "0"]


@root_alone
def test_output_comes_while_the_command_goes_on(live: Live, tmp_path: Path) -> None:
    """It waits for a file, which is made when its first line is here."""
    mark = tmp_path / "seen"

    def seen() -> bool:
        mark.touch()
        return True

    heard = Heard(seen)
    assert heard.run(live, f"echo one; until [ -e {mark} ]; do sleep 0.02; done; echo two") == 0
    assert heard.stdout == b"one\ntwo\n"


@root_alone
def test_all_of_a_long_output_comes(live: Live) -> None:
    heard = Heard()
    assert heard.run(live, "head -c 3000000 /dev/zero; head -c 200000 /dev/zero >&2") == 0
    assert (len(heard.stdout), len(heard.stderr)) == (3_000_000, 200_000)


@root_alone
def test_it_counts_as_a_sign_of_life(live: Live, at: Sshd) -> None:
    before = len(at.asked_systemd("restarted"))
    Heard().run(live, "true")
    assert at.asked_systemd("restarted")[before:] == ["amibuild-lease.timer"]


@root_alone
@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_here_ends_it_there(live: Live, at: Sshd, signal_name: str) -> None:
    def interrupt() -> bool:
        raise Interrupted(signal_name)

    before = len(at.asked_systemd("stopped"))
    with pytest.raises(Interrupted):
        Heard(interrupt).run(live, "echo began; sleep 987")
    assert len(at.asked_systemd("stopped")) == before + 1
    assert none_runs(live, "sleep 98[7]")


@root_alone
def test_it_is_ended_when_nobody_reads_what_it_says(live: Live) -> None:
    assert Heard(lambda: False).run(live, "echo began; sleep 986") == NOBODY_READS
    assert none_runs(live, "sleep 98[6]")


@root_alone
def test_it_is_ended_when_its_time_is_over(live: Live) -> None:
    with pytest.raises(CommandFailed, match="did not end in its time") as caught:
        Heard().run(live, "sleep 985", timeout_s=0.5)
    assert "--timeout" in (caught.value.hint or "")
    assert none_runs(live, "sleep 98[5]")


@root_alone
def test_its_time_is_over_also_while_it_talks(live: Live) -> None:
    with pytest.raises(CommandFailed, match="did not end in its time"):
        Heard().run(live, "yes", timeout_s=0.5)


@root_alone
def test_trouble_with_our_own_output_is_no_broken_connection(live: Live) -> None:
    def full() -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        Heard(full).run(live, "echo began; sleep 982")
    assert none_runs(live, "sleep 98[2]")


@root_alone
def test_a_cut_is_told_and_ends_it_too(live: Live, proxy: Proxy) -> None:
    def cut() -> bool:
        proxy.cut()
        return True

    with pytest.raises(CommandFailed, match=r"the connection broke.*it was ended"):
        Heard(cut).run(live, "echo began; sleep 984")
    assert none_runs(live, "sleep 98[4]")


def none_runs(live: Live, pattern: str) -> bool:
    heard = Heard()
    heard.run(live, f"pgrep -f '{pattern}' || echo none")
    return heard.stdout == b"none\n"


class Person:
    """At the near end of a terminal of ours, whose other end leads to the machine."""

    def __init__(self, live: Live) -> None:
        self.near, self.far = pty.openpty()
        tty.setraw(self.far)
        self.resized, self._resize = os.pipe()
        self.seen = b""
        self.ended: list[int | CommandFailed] = []
        self._thread = threading.Thread(target=self._sit, args=(live,), daemon=True)

    def __enter__(self) -> Person:
        self.resize(100, 30)
        self._thread.start()
        self.until_seen(b"# ")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._resize)
        os.close(self.near)
        self._thread.join(SAID_S)
        for fd in (self.far, self.resized):
            os.close(fd)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.near, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.write(self._resize, b"\0")

    def types(self, text: str) -> None:
        os.write(self.near, text.encode())

    def until_seen(self, text: bytes) -> None:
        """All up to there is forgotten."""

        def look() -> Look[bool]:
            if select.select([self.near], [], [], 0)[0]:
                self.seen += os.read(self.near, 65536)
            if text in self.seen:
                self.seen = self.seen.partition(text)[2]
                return Look("seen", True)
            return Look(f"saw {self.seen[-200:]!r}")

        until(look, what=repr(text), timeout_s=SAID_S)

    def end(self) -> int | CommandFailed:
        self._thread.join(SAID_S)
        return self.ended[0]

    def _sit(self, live: Live) -> None:
        def size() -> tuple[int, int]:
            return tuple(os.get_terminal_size(self.far))  # type: ignore[return-value]

        try:
            self.ended.append(
                live.terminal(Terminal(self.far, self.far, self.resized, size, "vt100"))
            )
        except CommandFailed as error:
            self.ended.append(error)


def test_a_shell_is_roots_has_a_terminal_and_ends_with_its_exit_code(live: Live) -> None:
    with Person(live) as person:
        person.types("tty; echo $TERM-$(id -u)-$PWD-$HISTFILE\n")
        person.until_seen(b"/dev/pts/")
        person.until_seen(b"vt100-0-/root-/dev/null")
        person.types("exit 7\n")
        assert person.end() == 7


@root_alone
def test_the_terminals_size_and_its_changes_go_there(live: Live) -> None:
    with Person(live) as person:
        person.types("stty size\n")
        person.until_seen(b"30 100")
        person.types("trap 'echo now $(stty size)' WINCH; echo set''up\n")
        person.until_seen(b"setup")
        person.resize(120, 40)
        person.types("\n")
        person.until_seen(b"now 40 120")
        person.types("exit\n")
        assert person.end() == 0


def test_ctrl_c_ends_what_runs_there_and_not_the_shell(live: Live) -> None:
    with Person(live) as person:
        person.types("echo be''gan; sleep 983\n")
        person.until_seen(b"began")
        person.types("\x03")
        # What is typed before the shell is back may be lost: Ctrl-C empties a terminal's line.
        person.until_seen(b"# ")
        person.types("echo co''de $?\n")
        person.until_seen(b"code 130")
        person.types("\x04")
        person.end()
    assert none_runs(live, "sleep 98[3]")


@root_alone
def test_a_connection_that_breaks_under_the_shell_is_told(live: Live, proxy: Proxy) -> None:
    with Person(live) as person:
        proxy.cut()
        ended = person.end()
    assert isinstance(ended, CommandFailed)
    assert "the connection broke" in ended.message


@root_alone
def test_whoever_types_keeps_the_machine_from_ending(
    live: Live, at: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amibuild.communicator.ssh_live.RENEW_S", 0)
    before = len(at.asked_systemd("restarted"))
    with Person(live) as person:
        person.types("echo \n")
        until(
            lambda: Look("", len(at.asked_systemd("restarted")) >= before + 2 or None),
            what="a sign of life",
            timeout_s=SAID_S,
        )
        person.types("exit\n")
        person.end()


def test_our_terminal_is_raw_meanwhile_and_then_as_it_was() -> None:
    near, far = pty.openpty()
    before = termios.tcgetattr(far)
    handler = signal.getsignal(signal.SIGWINCH)
    with pytest.raises(Interrupted), raw(far, far) as terminal:
        assert not termios.tcgetattr(far)[3] & (termios.ISIG | termios.ECHO | termios.ICANON)
        assert terminal.size() == (80, 24)  # this one does not know its own
        os.kill(os.getpid(), signal.SIGWINCH)
        assert select.select([terminal.resized], [], [], SAID_S)[0]
        raise Interrupted("SIGTERM")
    assert termios.tcgetattr(far) == before
    assert signal.getsignal(signal.SIGWINCH) is handler
    os.close(near)
    os.close(far)
