"""A command and a terminal over SSH for somebody who looks on: what comes is shown as it comes.

Unlike a job, neither is picked up again after a cut: whoever wanted to see it starts it anew.
"""

from __future__ import annotations

import os
import secrets
import select
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import paramiko

from amibuild import signals
from amibuild.communicator import shell
from amibuild.communicator.ssh import as_root
from amibuild.communicator.ssh_channel import PACKET_BYTES, read_all
from amibuild.communicator.ssh_link import Away, Link, answered
from amibuild.communicator.unit import LEASE, LEASE_UNIT, STOP_S
from amibuild.errors import CommandFailed, HostKeyRefused
from amibuild.wait import Clock, SystemClock

FOLDER = "/run/amibuild/live"
# How soon a broken connection or the end of the time is noticed.
LOOK_S = 0.25
# The machine ends a command whose caller is lost, some time after the caller would have.
GRACE_S = 60
# Whoever types on a terminal keeps its machine from ending for want of jobs.
RENEW_S = 600.0
# As a shell has it of a command that SIGPIPE ended, or SIGHUP.
NOBODY_READS, HUNG_UP = 128 + 13, 128 + 1
RENEW = f"[ ! -e {LEASE} ] || systemctl restart {LEASE_UNIT} || true\n"
# No history of it in the image that may be made of this disk.
LOGIN = f"""\
{RENEW}cd
export HISTFILE=/dev/null
unset SUDO_USER SUDO_UID SUDO_GID SUDO_COMMAND SUDO_HOME MAIL
exec /bin/bash -l
"""

Sink = Callable[[bytes], bool]
"""Takes what comes; False when nobody reads it any more."""


@dataclass(frozen=True)
class Terminal:
    """The near end, which passes each key on as it is. `resized` can be read from when it has
    another `size`, in columns and rows."""

    stdin: int
    stdout: int
    resized: int
    size: Callable[[], tuple[int, int]]
    kind: str


class Live:
    def __init__(self, link: Link, clock: Clock | None = None) -> None:
        self._link = link
        self._clock = clock or SystemClock()

    def close(self) -> None:
        self._link.close()

    def run(self, script: bytes, *, timeout_s: float, stdout: Sink, stderr: Sink) -> int:
        """Runs a bash script as root at home, as a unit of the machine, with nothing on its stdin.

        What ends this ends the unit too. Raises: CommandFailed when it does not end by itself.
        """
        name = f"amibuild-live-{secrets.token_hex(4)}"
        limit = self._clock.monotonic() + timeout_s
        try:
            with self._link.session() as channel:
                command = as_root(self._link.user, _start(name, script, timeout_s))
                self._link.begin(channel, command)
                with self._link.failing():
                    for offset in range(0, len(script), PACKET_BYTES):
                        channel.sendall(script[offset : offset + PACKET_BYTES])
                    channel.shutdown_write()
                if not self._shown(channel, limit, stdout, stderr):
                    self._stop(name)
                    return NOBODY_READS
                return _status(channel)
        except Away as away:
            self._link.close()  # it may not have noticed all of it yet
            left = "it was ended" if self._stop(name) else f"it may go on there, as {name}.service"
            reason = f"the connection broke ({away}); {left}"
            raise CommandFailed(what="the command", exit_code=None, reason=reason) from away
        except BaseException:
            self._stop(name)
            raise

    def terminal(self, near: Terminal) -> int:
        """A login shell of root on a terminal of the machine; its exit code.

        Raises: CommandFailed when the connection breaks.
        """
        try:
            with self._link.session() as channel:
                columns, rows = near.size()
                with self._link.failing(), answered(channel):
                    channel.get_pty(near.kind, columns, rows)
                self._link.begin(channel, as_root(self._link.user, LOGIN))
                return _status(channel) if self._between(near, channel) else HUNG_UP
        except Away as away:
            reason = f"the connection broke: {away}"
            raise CommandFailed(what="the shell", exit_code=None, reason=reason) from away

    def _shown(self, channel: paramiko.Channel, limit: float, stdout: Sink, stderr: Sink) -> bool:
        """Until it has ended; False when nobody reads it. Raises: Away, CommandFailed."""
        while True:
            over = channel.exit_status_ready()
            if self._clock.monotonic() > limit:
                raise CommandFailed(
                    what="the command",
                    exit_code=None,
                    reason="did not end in its time, and was ended",
                    hint="--timeout gives it more",
                )
            if channel.recv_ready():
                if not stdout(channel.recv(PACKET_BYTES)):
                    return False
            elif channel.recv_stderr_ready():
                if not stderr(channel.recv_stderr(PACKET_BYTES)):
                    return False
            elif over and (channel.eof_received or channel.closed):
                return True
            elif channel.eof_received:
                channel.status_event.wait(LOOK_S)
                self._link.check()
            else:
                select.select([channel.fileno()], [], [], LOOK_S)
                self._link.check()

    def _between(self, near: Terminal, channel: paramiko.Channel) -> bool:
        """Keys there, output here, until the shell has ended; False when the near end is closed."""
        renewed, typed = self._clock.monotonic(), False
        while True:
            over = channel.exit_status_ready() and channel.eof_received
            if channel.recv_ready():
                _write(near.stdout, channel.recv(PACKET_BYTES))
                continue
            if over or channel.closed:
                return True
            if channel.eof_received:
                channel.status_event.wait(LOOK_S)
                self._link.check()
                continue
            # Keys that the machine does not take yet stay in the near terminal's own buffer.
            keys = [near.stdin] if channel.send_ready() else []
            ready = select.select([channel.fileno(), near.resized, *keys], [], [], LOOK_S)[0]
            if near.resized in ready:
                os.read(near.resized, PACKET_BYTES)
                columns, rows = near.size()
                with self._link.failing():
                    channel.resize_pty(columns, rows)
            if near.stdin in ready:
                pressed = _pressed(near.stdin)
                if not pressed:
                    return False
                with self._link.failing():
                    channel.sendall(pressed)
                typed = True
            if typed and self._clock.monotonic() - renewed > RENEW_S:
                renewed, typed = self._clock.monotonic(), False
                self._once(RENEW)
            if not ready:
                self._link.check()

    def _stop(self, name: str) -> bool:
        """Whether nothing of it runs any more, as the machine says. An interrupt waits for it."""
        with signals.hold(deliver=False), suppress(Away, HostKeyRefused):
            return self._once(f"systemctl stop {shell.quote(name)} 2>/dev/null || [ $? = 5 ]") == 0
        return False

    def _once(self, script: str) -> int:
        with self._link.session() as channel, self._link.failing():
            self._link.begin(channel, as_root(self._link.user, script))
            return read_all(channel).exit_code


def _start(name: str, script: bytes, timeout_s: float) -> str:
    """Takes the script from its input. One that was cut on its way is not run."""
    at = f"{FOLDER}/{name}"
    return f"""\
set -eu
umask 077
{RENEW}mkdir -p {at}
trap 'rm -rf {at}' EXIT
cat >{at}/command.sh
[ "$(wc -c <{at}/command.sh)" -eq {len(script)} ] || exit 1
code=0
systemd-run --quiet --wait --pipe --collect --unit={name} --service-type=exec \\
    --working-directory=/root --setenv=HOME=/root --setenv=HISTFILE=/dev/null \\
    --property=RuntimeMaxSec={int(timeout_s) + GRACE_S} --property=TimeoutStopSec={STOP_S} \\
    -- /bin/bash {at}/command.sh </dev/null || code=$?
exit $code
"""


def _status(channel: paramiko.Channel) -> int:
    """Raises: Away when the far end never said how it ended."""
    status = channel.recv_exit_status() if channel.exit_status_ready() else -1
    if status < 0:
        raise Away("it ended before the command did")
    return status


def _pressed(fd: int) -> bytes:
    """Nothing once the terminal is closed."""
    try:
        return os.read(fd, PACKET_BYTES)
    except OSError:  # Linux' way to say that
        return b""


def _write(fd: int, chunk: bytes) -> None:
    while chunk:
        chunk = chunk[os.write(fd, chunk) :]
