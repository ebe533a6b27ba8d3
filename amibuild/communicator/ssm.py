"""Jobs over SSM Run Command: no inbound port, no key, the instance role is enough.

A job is one command when its payload fits into 64 KB. A larger one goes by the bucket, or in
pieces where the recipe names none. SSM keeps only 24,000 characters of output, so the log comes
back compressed, and in as many pieces as it takes.

The command only waits for the job, which is a unit of its own on the machine. When the command is
lost, with the agent for example, another one is sent that waits for the same job.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from amibuild import signals
from amibuild.aws.ssm import COMMAND_LIMIT_BYTES, COMMAND_OVERHEAD_BYTES, Invocation, Ssm
from amibuild.communicator import envelope, shell, unit
from amibuild.communicator.base import TAIL_LINES, CommandResult, Ending, RemoteJob
from amibuild.communicator.shell import Unit
from amibuild.errors import AmibuildError, AwsError, CommandFailed, WaitTimeout
from amibuild.secret import masked
from amibuild.wait import Clock, Look, Observer, SystemClock, silent, until

ROOM_BYTES = COMMAND_LIMIT_BYTES - COMMAND_OVERHEAD_BYTES
# base64 with line ends makes 4 characters of 3 bytes, and 77 of 76.
PIECE_BYTES = ROOM_BYTES * 3 // 4 * 76 // 77 - 1024
# Delivery may take a minute, and an agent that dies never reports: then this ends the wait.
GRACE_S = 90
SHORT_S = 60
# The agent says so: the machine and the log of the job are still there.
CUT_SHORT = frozenset({"ExecutionTimedOut", "Failed"})
# A job's time is kept on the machine: the command that waits for it has time to tell.
TELL_S = 30
LONGEST_COMMAND_S = 172_800
# So long an agent may be away before its machine is given up: one that is updated takes seconds.
AWAY_S = 120
# What a shell makes of a signal: 128 and its number.
LEAST_SIGNALLED = 128
# An agent works on five commands at a time, and the others wait.
AT_ONCE = 4

Upload = Callable[[bytes], str]
"""Stores a payload in the bucket and answers with a URL that fetches it."""


def random_id() -> str:
    return secrets.token_hex(8)


class SsmCommunicator:
    def __init__(
        self,
        ssm: Ssm,
        instance_id: str,
        *,
        upload: Upload | None = None,
        clock: Clock | None = None,
        new_id: Callable[[], str] = random_id,
    ) -> None:
        """`new_id` names each job that is sent: two are never the same."""
        self._ssm = ssm
        self._instance = instance_id
        self._upload = upload
        self._clock = clock or SystemClock()
        self._new_id = new_id

    def run(self, job: RemoteJob, observer: Observer) -> CommandResult:
        with self.started(job, observer) as end:
            return end(observer)

    @contextmanager
    def started(self, job: RemoteJob, observer: Observer) -> Iterator[Ending]:
        at = Unit(job.name, self._new_id())
        began = self._clock.monotonic()
        script = self._deliver(job, at, observer)
        sent = _Sent(job, at, began)
        try:
            with self._sent(job.name, script, _waits_s(job.timeout_s)) as command:
                yield functools.partial(self._collect, sent, command)
        finally:
            if not sent.ended:
                # The command was cancelled, and that may have ended no more than the waiting.
                with signals.hold(deliver=False), suppress(AwsError):
                    self._send(f"{job.name} (stopping it)", sent.stop, SHORT_S)

    def _collect(self, sent: _Sent, command: _Command, observer: Observer) -> CommandResult:
        job = sent.job
        done = self._end(sent, command, observer)
        with envelope.undamaged(job, done.exit_code, done.stderr):
            reply = shell.read_reply(done.stdout)
            if reply is not None:
                log, result = envelope.opened(job, self._whole(sent.at, reply))
                spent_s = self._clock.monotonic() - sent.began
                return CommandResult(reply.exit_code, shell.masked_log(log), result, spent_s)
        end = shell.read_end(done.stdout)
        said = end.said if end else self._last_words(sent, done)
        raise CommandFailed(
            what=job.name,
            exit_code=done.exit_code,
            reason=end.reason(job.timeout_s) if end else _why(done, job.timeout_s),
            tail=masked(said).splitlines()[-TAIL_LINES:],
            hint=None if end else shell.hint_before(said),
        )

    def _end(self, sent: _Sent, command: _Command, observer: Observer) -> Invocation:
        """Of the command that saw the job's end, or of the first one when none did."""
        try:
            done = command.end(observer)
        except WaitTimeout:
            found = self._attached(sent, observer)
            if found is None:
                raise
            done = found
        if _is_lost(done):
            done = self._attached(sent, observer) or done
        sent.ended = _is_told(done)
        return done

    def _attached(self, sent: _Sent, observer: Observer) -> Invocation | None:
        """Waits for a job whose command was lost, by other commands, as long as it may take.

        None when the machine does not answer, or has no such job.
        """
        script = unit.attach(sent.at, closed=sent.job.is_secret)
        heard = False

        def look() -> Look[Invocation]:
            nonlocal heard
            left_s = sent.began + sent.job.timeout_s - self._clock.monotonic()
            with self._sent(
                f"{sent.job.name} (attached again)", script, _waits_s(max(int(left_s), 0))
            ) as command:
                done = command.end(observer)
            heard = command.heard
            return Look(done.details, None if _is_away(done) else done)

        while True:
            try:
                done = until(look, what=sent.job.name, timeout_s=AWAY_S, clock=self._clock)
            except AwsError:
                return None
            except WaitTimeout:
                if heard and self._clock.monotonic() < sent.began + sent.job.timeout_s:
                    continue
                return None
            end = shell.read_end(done.stdout)
            known = _is_told(done) or done.status in {"TimedOut", "Cancelled"}
            return None if not known or (end and end.result == "unknown") else done

    def _last_words(self, sent: _Sent, done: Invocation) -> str:
        """What a job said whose end nobody saw, which is stopped, as its machine answers.

        Not what one with secrets said, for it would go back in clear: that one is forgotten.
        """
        said = ""
        if done.details.replace(" ", "") in CUT_SHORT:
            sent.ended = True
            with suppress(AmibuildError):
                what = "forgetting its secrets" if sent.job.is_secret else "what it said"
                said = self._short(f"{sent.job.name} ({what})", sent.stop, silent).stdout
        return f"{said}{done.stderr}" or done.stdout

    def _deliver(self, job: RemoteJob, at: Unit, observer: Observer) -> str:
        """The script that starts the job, once its payload is on its way or on the machine."""
        if job.brings_secrets:
            job = self._closed(job, at, observer)
        elif job.is_secret:
            job = envelope.with_reader(job)
        packed = shell.payload(job)
        start = functools.partial(
            unit.start,
            timeout_s=job.timeout_s,
            secrets=job.brings_secrets,
            closed=job.is_secret,
        )
        owners = shell.owners(job)
        inline = start(at, owners + shell.unpack_inline(at, packed))
        by_bucket = job.private and self._upload is not None
        if len(inline.encode()) <= ROOM_BYTES and not by_bucket:
            return inline
        unpack = owners + shell.unpack_payload(at, packed)
        if self._upload is not None:
            return start(at, shell.fetch_payload(at, self._upload(packed)) + unpack)
        self._send_pieces(at, packed, observer)
        return start(at, shell.join_pieces(at) + unpack)

    def _closed(self, job: RemoteJob, at: Unit, observer: Observer) -> RemoteJob:
        """The job with its secrets as a file that only the machine can open."""
        script = unit.make_key(at, envelope.KEY_BITS)
        made = self._short(f"{job.name} (a key for its secrets)", script, observer)
        return envelope.with_secrets(job, made.stdout)

    def _send_pieces(self, at: Unit, packed: bytes, observer: Observer) -> None:
        """Some at once: most of a command's time is its way to the machine and back."""
        pieces = [
            (number, packed[offset : offset + PIECE_BYTES])
            for number, offset in enumerate(range(0, len(packed), PIECE_BYTES), start=1)
        ]
        for first in range(0, len(pieces), AT_ONCE):
            with ExitStack() as sending:
                commands = [
                    sending.enter_context(
                        self._sent(
                            f"{at.job} (sending {number} of {len(pieces)})",
                            shell.store_piece(at, number, piece),
                            SHORT_S,
                        )
                    )
                    for number, piece in pieces[first : first + AT_ONCE]
                ]
                for command in commands:
                    _short_end(command, observer)

    def _whole(self, at: Unit, reply: shell.Reply) -> bytes:
        packed = reply.first
        while len(packed) < reply.size:
            done = self._short(f"{at.job} (its log)", shell.piece(at, len(packed)), silent)
            piece = shell.read_piece(done.stdout)
            if not piece:
                break  # it is shorter than it said: the hash below tells
            packed += piece
        if hashlib.sha256(packed).hexdigest() != reply.sha256:
            raise CommandFailed(
                what=at.job,
                exit_code=reply.exit_code,
                reason=f"its log came back damaged (ended with exit code {reply.exit_code})",
            )
        return packed

    def _short(self, what: str, script: str, observer: Observer) -> Invocation:
        with self._sent(what, script, SHORT_S) as command:
            return _short_end(command, observer)

    @contextmanager
    def _sent(self, what: str, script: str, timeout_s: int) -> Iterator[_Command]:
        """One command on the machine. One that has not ended with the block is cancelled there."""
        number = self._send(what, script, timeout_s)
        command = _Command(self._ssm, self._instance, number, what, timeout_s, self._clock)
        try:
            yield command
        finally:
            if not command.ended:
                with signals.hold(deliver=False), suppress(AwsError):
                    self._ssm.cancel(number, self._instance)

    def _send(self, what: str, script: str, timeout_s: int) -> str:
        return self._ssm.send(self._instance, script, comment=what, timeout_s=timeout_s)


@dataclass
class _Sent:
    """A job that was sent, until its end was seen, or given up."""

    job: RemoteJob
    at: Unit
    began: float
    ended: bool = False

    @property
    def stop(self) -> str:
        return unit.stop(self.at, closed=self.job.is_secret)


@dataclass
class _Command:
    """A command that was sent, until its end was seen. `heard` says that the machine took it."""

    ssm: Ssm
    instance: str
    number: str
    what: str
    timeout_s: int
    clock: Clock
    ended: bool = False
    heard: bool = False

    def end(self, observer: Observer) -> Invocation:
        done = until(
            self._look,
            what=self.what,
            timeout_s=self.timeout_s + GRACE_S,
            clock=self.clock,
            observer=observer,
            hint="the agent does not report: see the console log",
        )
        self.ended = True
        return done

    def _look(self) -> Look[Invocation]:
        seen = self.ssm.invocation(self.number, self.instance)
        self.heard = self.heard or seen.status == "InProgress"
        return Look(seen.details, seen if seen.ended else None)


def _short_end(command: _Command, observer: Observer) -> Invocation:
    done = command.end(observer)
    if done.exit_code != 0:
        raise CommandFailed(
            what=command.what,
            exit_code=done.exit_code,
            reason=_why(done, SHORT_S),
            tail=masked(done.stderr).splitlines()[-TAIL_LINES:],
            hint=shell.hint_before(done.stderr),
        )
    return done


def _waits_s(timeout_s: int) -> int:
    """Of a command that waits for a job of so long."""
    return min(timeout_s + TELL_S, LONGEST_COMMAND_S)


def _is_lost(done: Invocation) -> bool:
    """Whether a command ended that was to wait for its job, and the job may not have."""
    if done.status in {"Success", "Cancelled"} or "Delivery" in done.details:
        return False
    if _is_told(done):
        return False
    return done.exit_code is None or done.exit_code >= LEAST_SIGNALLED


def _is_away(done: Invocation) -> bool:
    """Whether the agent did not answer that was to wait, or was lost with what it did."""
    unheard = "deliver" in done.details.lower()
    return unheard or (_is_lost(done) and done.status != "TimedOut")


def _is_told(done: Invocation) -> bool:
    """Whether it says how its job ended."""
    return bool(shell.read_end(done.stdout) or shell.HEADER.match(done.stdout))


def _why(done: Invocation, timeout_s: int) -> str:
    match done.status:
        case "TimedOut" if "Delivery" in done.details:
            return "never reached the machine: its agent does not answer"
        case "TimedOut":
            return f"did not end within {timeout_s} s"
        case "Cancelled":
            return "was cancelled"
        case _ if done.exit_code is None:
            return f"did not run: {done.details}"
        case _:
            return f"ended with exit code {done.exit_code} before it began its work"
