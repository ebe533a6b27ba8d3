"""Jobs over SSM Run Command: no inbound port, no key, the instance role is enough.

A job is one command when its payload fits into 64 KB. A larger one goes by the bucket, or in
pieces where the recipe names none. SSM keeps only 24,000 characters of output, so the log comes
back compressed, and in as many pieces as it takes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

from amibuild import signals
from amibuild.aws.ssm import COMMAND_LIMIT_BYTES, COMMAND_OVERHEAD_BYTES, Invocation, Ssm
from amibuild.communicator import envelope, shell
from amibuild.communicator.base import TAIL_LINES, CommandResult, Ending, RemoteJob
from amibuild.errors import AmibuildError, AwsError, CommandFailed
from amibuild.library.step import StepFile
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
# An agent works on five commands at a time, and the others wait.
AT_ONCE = 4

Upload = Callable[[bytes], str]
"""Stores a payload in the bucket and answers with a URL that fetches it."""


class SsmCommunicator:
    def __init__(
        self,
        ssm: Ssm,
        instance_id: str,
        *,
        upload: Upload | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._ssm = ssm
        self._instance = instance_id
        self._upload = upload
        self._clock = clock or SystemClock()

    def run(self, job: RemoteJob, observer: Observer) -> CommandResult:
        with self.started(job, observer) as end:
            return end(observer)

    @contextmanager
    def started(self, job: RemoteJob, observer: Observer) -> Iterator[Ending]:
        began = self._clock.monotonic()
        script = self._deliver(job, observer)
        with self._sent(job.name, script, job.timeout_s) as command:
            yield functools.partial(self._collect, job, command, began)

    def _collect(
        self, job: RemoteJob, command: _Command, began: float, observer: Observer
    ) -> CommandResult:
        done = command.end(observer)
        try:
            reply = shell.read_reply(done.stdout)
            if reply is None:
                raise CommandFailed(
                    what=job.name,
                    exit_code=done.exit_code,
                    reason=_why(done, job.timeout_s),
                    tail=masked(self._last_words(job, done)).splitlines()[-TAIL_LINES:],
                )
            packed = self._whole(job.name, reply)
            if job.is_secret:
                packed = envelope.open_reply(packed)
            log, result = shell.open_reply(packed)
        except shell.UNREADABLE as error:
            raise CommandFailed(
                what=job.name,
                exit_code=done.exit_code,
                reason=f"what the machine sent back can't be read: {error}",
                tail=masked(done.stderr).splitlines()[-TAIL_LINES:],
            ) from error
        spent_s = self._clock.monotonic() - began
        return CommandResult(reply.exit_code, masked(log), result, spent_s)

    def _last_words(self, job: RemoteJob, done: Invocation) -> str:
        """What a job said that did not come to its end: its log is on the machine still.

        Not what one with secrets said, for it would go back in clear: that one is forgotten.
        """
        said = ""
        if done.details.replace(" ", "") in CUT_SHORT:
            with suppress(AmibuildError):
                if job.is_secret:
                    name, script = "forgetting its secrets", shell.forget_secrets(job.name)
                else:
                    name, script = "what it said", shell.last_lines(job.name)
                said = self._short(f"{job.name} ({name})", script, silent).stdout
        return f"{said}{done.stderr}" or done.stdout

    def _deliver(self, job: RemoteJob, observer: Observer) -> str:
        """The script that starts the job, once its payload is on its way or on the machine."""
        if job.is_secret:
            job = self._closed(job, observer)
        packed = shell.payload(job)
        begin = shell.prepare(job.name)
        run = shell.start(job.name, secrets=job.is_secret)
        inline = begin + shell.unpack_inline(job.name, packed) + run
        by_bucket = job.private and self._upload is not None
        if len(inline.encode()) <= ROOM_BYTES and not by_bucket:
            return inline
        unpack = shell.unpack_payload(job.name, packed)
        if self._upload is not None:
            return begin + shell.fetch_payload(job.name, self._upload(packed)) + unpack + run
        self._send_pieces(job.name, packed, observer)
        return begin + shell.join_pieces(job.name, packed) + unpack + run

    def _closed(self, job: RemoteJob, observer: Observer) -> RemoteJob:
        """The job with its secrets as a file that only the machine can open."""
        script = shell.make_key(job.name, envelope.KEY_BITS)
        made = self._short(f"{job.name} (a key for its secrets)", script, observer)
        try:
            closed = envelope.close(job, made.stdout)
        except ValueError as error:
            raise CommandFailed(
                what=job.name,
                exit_code=None,
                reason="the machine made no key that its secrets could be closed for",
                tail=made.stdout.splitlines()[-20:],
            ) from error
        brought = (
            StepFile(shell.SECRETS_FILE, closed, 0o600),
            StepFile(shell.READER_FILE, envelope.own_certificate()),
        )
        return replace(job, files=(*job.files, *brought))

    def _send_pieces(self, name: str, packed: bytes, observer: Observer) -> None:
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
                            f"{name} (sending {number} of {len(pieces)})",
                            shell.store_piece(name, packed, number, piece),
                            SHORT_S,
                        )
                    )
                    for number, piece in pieces[first : first + AT_ONCE]
                ]
                for command in commands:
                    _short_end(command, observer)

    def _whole(self, name: str, reply: shell.Reply) -> bytes:
        packed = reply.first
        while len(packed) < reply.size:
            done = self._short(f"{name} (its log)", shell.piece(name, len(packed)), silent)
            piece = shell.read_piece(done.stdout)
            if not piece:
                break  # it is shorter than it said: the hash below tells
            packed += piece
        if hashlib.sha256(packed).hexdigest() != reply.sha256:
            raise CommandFailed(
                what=name,
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
        number = self._ssm.send(self._instance, script, comment=what, timeout_s=timeout_s)
        command = _Command(self._ssm, self._instance, number, what, timeout_s, self._clock)
        try:
            yield command
        finally:
            if not command.ended:
                with signals.hold(deliver=False), suppress(AwsError):
                    self._ssm.cancel(number, self._instance)


@dataclass
class _Command:
    """A command that was sent, until its end was seen."""

    ssm: Ssm
    instance: str
    number: str
    what: str
    timeout_s: int
    clock: Clock
    ended: bool = False

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
        return Look(seen.details, seen if seen.ended else None)


def _short_end(command: _Command, observer: Observer) -> Invocation:
    done = command.end(observer)
    if done.exit_code != 0:
        raise CommandFailed(
            what=command.what,
            exit_code=done.exit_code,
            reason=_why(done, SHORT_S),
            tail=masked(done.stderr).splitlines()[-20:],
        )
    return done


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
