"""Jobs over SSH: a job's files go there as one compressed stream, and its reply comes as another.

As over SSM a command only waits for the job, which is a unit of its own on the machine. When the
connection breaks, the next one waits for the same job, as long as the job may take. What the
machine is told to do, it does on the boot that it was told on: after another one nothing of it is
done a second time.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import IO, TypeVar

import paramiko

from amibuild import signals
from amibuild.communicator import envelope, shell, unit
from amibuild.communicator.base import TAIL_LINES, CommandResult, Ending, RemoteJob
from amibuild.communicator.packing import Packer
from amibuild.communicator.shell import Unit
from amibuild.communicator.ssh_channel import (
    Done,
    Told,
    holding_of,
    incoming,
    read_all,
    sending,
    unless_ended,
    upload_job,
)
from amibuild.communicator.ssh_link import Away, Link
from amibuild.errors import CommandFailed, HostKeyRefused, WaitTimeout
from amibuild.secret import masked
from amibuild.wait import Clock, Look, Observer, SystemClock, silent, until

T = TypeVar("T")
Beside = Callable[[paramiko.Channel], None]

# A job's time is kept on the machine: this is for its reply.
GRACE_S = 90
# For what takes a moment once the machine is reached.
SHORT_S = 60
STOP_S = 15
# For a tree of any size.
TRANSFER_S = 3600
ANSWERED = "answered"
LEAST_SIGNALLED = 128
BOOT_ID = "/proc/sys/kernel/random/boot_id"
# The job's environment is that of the command. Only these lines say that it came by SSH, and to the
# steps that would else take away what the bake needs to its end.
_CALLER = """\
export AMIBUILD_SSH_USER="${SUDO_USER:-root}"
unset SUDO_USER SUDO_UID SUDO_GID SUDO_COMMAND SUDO_HOME SSH_CLIENT SSH_CONNECTION SSH_TTY MAIL
"""


def random_id() -> str:
    return secrets.token_hex(8)


class SshCommunicator:
    def __init__(
        self, link: Link, *, clock: Clock | None = None, new_id: Callable[[], str] = random_id
    ) -> None:
        """`new_id` names each job that is sent: two are never the same."""
        self.link = link
        self._clock = clock or SystemClock()
        self._new_id = new_id

    def boot_id(self, *, timeout_s: float = SHORT_S, observer: Observer = silent) -> str:
        """Another after each boot of the machine. Raises: WaitTimeout, HostKeyRefused."""
        if not (self.link.boot and self.link.is_open):
            said = self._short("the boot id", f"cat {BOOT_ID}", timeout_s, observer=observer).text
            self.link.boot = said.strip()
        return self.link.boot

    def try_once(self) -> None:
        """Raises: Away, HostKeyRefused; CommandFailed when the user may not become root."""
        done = self._once("true")
        if done.exit_code != 0:
            raise CommandFailed(
                what="sudo",
                exit_code=done.exit_code,
                reason=f"{self.link.user} can't become root without a password",
                tail=done.stderr.splitlines()[-TAIL_LINES:],
            )

    def run(self, job: RemoteJob, observer: Observer) -> CommandResult:
        with self.started(job, observer) as end:
            return end(observer)

    @contextmanager
    def started(self, job: RemoteJob, observer: Observer) -> Iterator[Ending]:
        at = Unit(job.name, self._new_id())
        began = self._clock.monotonic()
        boot = self.boot_id(timeout_s=job.timeout_s, observer=observer)
        if job.brings_secrets:
            made = self._short(
                f"{job.name} (a key for its secrets)",
                unit.make_key(at, envelope.KEY_BITS),
                self._left_s(began, job),
                observer=observer,
            )
            if made.exit_code != 0:
                raise CommandFailed(
                    what=job.name,
                    exit_code=made.exit_code,
                    reason="the machine made no key for its secrets",
                    tail=masked(made.stderr).splitlines()[-TAIL_LINES:],
                    hint=shell.hint_before(made.stderr),
                )
            job = envelope.with_secrets(job, made.text)
        elif job.is_secret:
            job = envelope.with_reader(job)
        sent = _Sent(job, at, began, boot)
        with ExitStack() as calls:
            waiting = _Waiting(self.link, sent, calls, self._clock)
            try:
                waiting.begin(observer)
                yield functools.partial(self._collect, sent, waiting)
            finally:
                if not sent.ended:
                    silenced = (WaitTimeout, CommandFailed, HostKeyRefused)
                    with signals.hold(deliver=False), suppress(*silenced):
                        self._short(f"{job.name} (stopping it)", sent.stop, STOP_S)

    def upload(
        self,
        what: str,
        script: str,
        write: Callable[[Packer], None],
        level: int | None,
        observer: Observer = silent,
    ) -> Done:
        """Runs a script with a stream on its input, again when it is cut. Raises: WaitTimeout."""
        told = Told(what, TRANSFER_S, observer, self._clock)

        def hand_over(channel: paramiko.Channel) -> None:
            write(Packer(told.of(sending(channel)), level))
            channel.shutdown_write()

        return self._short(what, script, TRANSFER_S, hand_over)

    def download(
        self,
        what: str,
        script: str,
        read: Callable[[IO[bytes]], None],
        observer: Observer = silent,
    ) -> Done:
        """Runs a script whose output is a stream, again when it is cut. Raises: WaitTimeout."""
        told = Told(what, TRANSFER_S, observer, self._clock)
        return self._short(
            what, script, TRANSFER_S, lambda channel: read(incoming(channel, told.begin()))
        )

    def _collect(self, sent: _Sent, waiting: _Waiting, observer: Observer) -> CommandResult:
        job = sent.job
        done = waiting.end(observer)
        sent.ended = done.is_told
        with envelope.undamaged(job, done.exit_code, done.stderr):
            reply = shell.read_reply(done.text)
            if reply is not None:
                packed = self._whole(sent, reply, self._left_s(waiting.since, job), observer)
                log, result = envelope.opened(job, packed)
                spent_s = self._clock.monotonic() - sent.began
                return CommandResult(reply.exit_code, shell.masked_log(log), result, spent_s)
        end = shell.read_end(done.text)
        raise CommandFailed(
            what=job.name,
            exit_code=done.exit_code,
            reason=end.reason(job.timeout_s)
            if end
            else f"ended with exit code {done.exit_code} before it began its work",
            tail=masked(end.said if end else done.stderr).splitlines()[-TAIL_LINES:],
            hint=None if end else shell.hint_before(done.stderr),
        )

    def _left_s(self, since: float, job: RemoteJob) -> float:
        """For what belongs to a job and takes a moment: a cut may last as long as the job may."""
        left_s = since + job.timeout_s + GRACE_S - self._clock.monotonic()
        return max(left_s, SHORT_S)

    def _whole(
        self, sent: _Sent, reply: shell.Reply, timeout_s: float, observer: Observer
    ) -> bytes:
        """The rest of a reply comes as it is, in one stream."""
        packed = reply.first
        if len(packed) < reply.size:
            rest = f"tail -c +{len(packed) + 1} {shell.quote(sent.at.folder)}/reply.tar.gz"
            what = f"{sent.job.name} (its log)"
            packed += self._short(what, rest, timeout_s, observer=observer).stdout
        if hashlib.sha256(packed).hexdigest() != reply.sha256:
            raise shell.Damaged("it is not what the machine sent")
        return packed

    def _short(
        self,
        what: str,
        script: str,
        timeout_s: float = SHORT_S,
        beside: Beside | None = None,
        observer: Observer = silent,
    ) -> Done:
        """What may be done twice, until the machine has answered: the observer hears while it does
        not. Raises: WaitTimeout."""

        def look() -> Look[Done]:
            try:
                done = self._once(script, beside)
            except Away as away:
                return Look(f"not reached: {away}")
            return Look(ANSWERED, done)

        hear: Observer = lambda one: None if one.state == ANSWERED else observer(one)  # noqa: E731
        return until(look, what=what, timeout_s=timeout_s, clock=self._clock, observer=hear)

    def _once(self, script: str, beside: Beside | None = None) -> Done:
        with self.link.session() as channel, self.link.failing():
            self.link.begin(channel, as_root(self.link.user, script))
            with unless_ended(channel):
                if beside is not None:
                    beside(channel)
            return read_all(channel)


@dataclass
class _Sent:
    """A job that was sent, until its end was seen, or given up. `boot` is the one it runs on."""

    job: RemoteJob
    at: Unit
    began: float
    boot: str
    ended: bool = False

    @property
    def start(self) -> str:
        """Says what it has, and takes the rest from its input."""
        take = unit.take(self.at, shell.owners(self.job))
        script = unit.start(
            self.at,
            unit.put(),
            self.job.timeout_s,
            secrets=self.job.brings_secrets,
            closed=self.job.is_secret,
        )
        return f"set -eu\n{_CALLER}{self._on_this_boot}{take}{script}"

    @property
    def attach(self) -> str:
        return f"{self._on_this_boot}{unit.attach(self.at, closed=self.job.is_secret)}"

    @property
    def stop(self) -> str:
        return unit.stop(self.at, closed=self.job.is_secret)

    @property
    def _on_this_boot(self) -> str:
        return (
            f'[ "$(cat {BOOT_ID})" = {shell.quote(self.boot)} ] || {{\n'
            "    echo amibuild-ended rebooted\n    exit 1\n}\n"
        )


class _Waiting:
    """The command that waits for a job; another one when its connection broke.

    Its clock stands still while files go to the machine, for that is none of the job's time.
    """

    def __init__(self, link: Link, sent: _Sent, calls: ExitStack, clock: Clock) -> None:
        self._link = link
        self._sent = sent
        self._calls = calls
        self._clock = clock
        self._channel: paramiko.Channel | None = None
        self._said = b""
        """The command's first line, where that was not about what it has."""
        self._sending_s = 0.0
        self.since = sent.began
        """From when on the job has its time: once it was sent."""

    def begin(self, observer: Observer) -> None:
        """Sends the job, as often as it takes. Raises: CommandFailed."""
        told = Told(f"{self._sent.job.name} (sending it)", TRANSFER_S, observer, self._clock)

        def look() -> Look[bool]:
            try:
                self._send(told)
            except Away as away:
                if self._sending_s > TRANSFER_S:
                    raise CommandFailed(
                        what=self._sent.job.name,
                        exit_code=None,
                        reason=f"its files were not there after {TRANSFER_S} s: {away}",
                    ) from away
                return Look(f"not reached: {away}")
            return Look("sent", True)

        self._until(look, observer)
        self.since = self._clock.monotonic()

    def end(self, observer: Observer) -> Done:
        """How it ended, as the machine tells. Raises: CommandFailed when it does not."""
        while True:
            done = self._until(self._look, observer)
            end = shell.read_end(done.text)
            if not (end and end.result == "unknown"):
                return done
            self.begin(observer)  # it never came there: the connection broke on the way

    def sleep(self, seconds: float) -> None:
        """Until then, or until the command has ended: nobody waits longer than the job takes."""
        if self._channel is None:
            self._clock.sleep(seconds)
        else:
            self._channel.status_event.wait(seconds)

    def now(self) -> datetime:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic() - self._sending_s

    def _look(self) -> Look[Done]:
        try:
            if self._channel is None:
                self._attach()
            done = self._ended()
        except Away as away:
            self._channel = None
            return Look(f"not reached: {away}")
        if done is None:
            return Look("running")
        self._channel = None
        if not done.is_told and done.exit_code >= LEAST_SIGNALLED:
            return Look("lost its command")
        return Look("ended", done)

    def _ended(self) -> Done | None:
        channel = self._channel
        assert channel is not None
        if not channel.exit_status_ready() and not channel.closed:
            self._link.check()
            return None
        with self._link.failing():
            done = read_all(channel)
        return replace(done, stdout=self._said + done.stdout)

    def _attach(self) -> None:
        self._said = b""
        self._channel = self._opened(self._sent.attach)

    def _send(self, told: Told) -> None:
        channel = self._opened(self._sent.start)
        self._said = b""
        with self._link.failing():
            self._said, holding = holding_of(channel)
            if holding is not None:
                began = self._clock.monotonic()
                try:
                    with unless_ended(channel):
                        upload_job(channel, self._sent.job, holding, told)
                finally:
                    self._sending_s += self._clock.monotonic() - began
        self._channel = channel

    def _opened(self, script: str) -> paramiko.Channel:
        self._calls.close()  # of the one before, which is over or lost
        channel = self._calls.enter_context(self._link.session())
        self._link.begin(channel, as_root(self._link.user, script))
        return channel

    def _until(self, look: Callable[[], Look[T]], observer: Observer) -> T:
        sent = self._sent
        left_s = self.since + sent.job.timeout_s + GRACE_S - self._clock.monotonic()
        try:
            return until(
                look, what=sent.job.name, timeout_s=max(left_s, 0), clock=self, observer=observer
            )
        except WaitTimeout as error:
            raise CommandFailed(
                what=sent.job.name,
                exit_code=None,
                reason=f"did not end within {sent.job.timeout_s} s: "
                f"the machine was last {error.last_state}",
                hint="see the console log",
            ) from error


def as_root(user: str, script: str) -> str:
    """The command for a script that root's shell runs."""
    become = "" if user == "root" else "sudo -n -H "
    return f"{become}/bin/sh -c {shell.quote(script)}"
