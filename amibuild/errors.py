"""Every error that amibuild raises on purpose. The bottom of the import order.

AmibuildError                exit code 1
├── UsageError               2   a verb was called in a way that cannot work
│   ├── RecipeError          2   the recipe, a provisioner or a service is wrong; lists all problems
│   ├── PlanError            2   the recipe is right, but cannot be built as it stands
│   └── PromotionRefused     2   the image must not be in that channel
├── HostError                1   this machine lacks something; the hint says what installs it
├── AwsError                 1   a call was refused; below are the cases that callers tell apart
│   ├── NotFound
│   ├── Denied
│   ├── Throttled
│   ├── InUse
│   ├── Duplicate
│   └── NoCapacity
├── CommandFailed            1   a command on a machine ended with an exit code other than 0
│   └── StepFailed           1   the script of a step did, and said so itself
├── WaitTimeout              1   a deadline passed
├── Locked                   1   another bake of the image is at work
├── ChannelBusy              1   somebody else moves the channel, or was quicker
├── ResourceFailed           1   a resource reached a state that it cannot leave
│   └── TakenBack            1   a spot machine was, by EC2: nobody's fault
├── HostKeyRefused           1   who answered has another key than the machine was given
├── VerifyFailed             3   the finished image did not pass its checks
└── LeftoverError            4   something could not be removed

Interrupted                130   SIGINT, SIGTERM or SIGHUP; a BaseException
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar


class AmibuildError(Exception):
    """The root: a message for a person, and a hint on what to do next."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.leftovers: tuple[Leftover, ...] = ()
        """What could not be removed on the way out. With any, the exit code is 4."""


class UsageError(AmibuildError):
    exit_code = 2


# Of one part of a message about a file.
LONGEST = 1000


@dataclass(frozen=True)
class Excerpt:
    """A line of a file as it can be shown, and which characters of it are meant."""

    text: str
    at: int
    width: int


@dataclass(frozen=True)
class Problem:
    """One mistake in a file. `line` counts from 1; `key` is dotted, with [n] for list items."""

    path: Path
    line: int | None
    key: str
    problem: str
    suggestion: str | None = None
    excerpt: Excerpt | None = None

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else str(self.path)
        problem, suggestion = _short(self.problem), _short(self.suggestion or "")
        what = f"{_short(self.key)}: {problem}" if self.key else problem
        told = f"{where}: {what}" + (f"; {suggestion}" if suggestion else "")
        # A file may hold what a terminal obeys.
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in told)


def _short(text: str) -> str:
    """What stands in a file may be as long as a file."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


class RecipeError(UsageError):
    """All mistakes of one reading, so that nobody mends them one run at a time."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(
            sorted(dict.fromkeys(problems), key=lambda p: (str(p.path), p.line or 0, p.key))
        )
        super().__init__("\n".join(str(p) for p in self.problems))


class PlanError(UsageError):
    pass


class PromotionRefused(UsageError):
    """All reasons at once, like the mistakes of a recipe. `flags` are what `promote` takes for a
    yes to each of them, "" where it takes none."""

    def __init__(
        self,
        what: str,
        reasons: Sequence[str],
        *,
        flags: Sequence[str] | None = None,
        hint: str | None = None,
    ) -> None:
        self.reasons = tuple(reasons)
        self.flags = tuple(flags if flags is not None else [""] * len(reasons))
        super().__init__("\n".join([f"{what}:", *(f"  {one}" for one in reasons)]), hint=hint)


class HostError(AmibuildError):
    pass


class AwsError(AmibuildError):
    """A refused or failed call. `resource` is the id or name that it was about, where one was.

    `answered` is False when the call may have been carried out all the same: its answer was lost,
    or was an error of the server's own.
    """

    def __init__(
        self,
        *,
        operation: str,
        code: str,
        message: str,
        region: str,
        request_id: str | None = None,
        resource: str | None = None,
        answered: bool = True,
        hint: str | None = None,
    ) -> None:
        about = f" on {resource}" if resource else ""
        super().__init__(f"{operation}{about} in {region}: {code}: {message}", hint=hint)
        self.operation = operation
        self.code = code
        self.region = region
        self.request_id = request_id
        self.resource = resource
        self.answered = answered


class NotFound(AwsError):
    pass


class Denied(AwsError):
    pass


class Throttled(AwsError):
    pass


class InUse(AwsError):
    pass


class Duplicate(AwsError):
    pass


class NoCapacity(AwsError):
    pass


class CommandFailed(AmibuildError):
    """A command on a machine ended badly. `tail` is the end of its output, for a person to read."""

    def __init__(
        self,
        *,
        what: str,
        exit_code: int | None,
        reason: str,
        tail: Sequence[str] = (),
        log: Path | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(f"{what}: {reason}", hint=hint)
        self.what = what
        self.command_exit_code = exit_code
        self.reason = reason
        self.tail = tuple(tail)
        self.log = log


class StepFailed(CommandFailed):
    """A step's own script ended badly, on a machine that is otherwise well."""


class WaitTimeout(AmibuildError):
    def __init__(
        self, *, what: str, waited_s: float, last_state: str, hint: str | None = None
    ) -> None:
        super().__init__(
            f"gave up waiting for {what} after {waited_s:.0f} s; it was last seen as {last_state}",
            hint=hint,
        )
        self.what = what
        self.waited_s = waited_s
        self.last_state = last_state


class ResourceFailed(AmibuildError):
    def __init__(self, *, what: str, state: str, reason: str = "", hint: str | None = None) -> None:
        because = f": {reason}" if reason else ""
        super().__init__(f"{what} is {state}{because}", hint=hint)
        self.what = what
        self.state = state


class TakenBack(ResourceFailed):
    """A spot instance that EC2 wanted back: what ran on it may be well."""


class Locked(AmibuildError):
    """Another bake of the image is at work: who, since when, until when at most."""

    def __init__(
        self,
        *,
        image: str,
        bake_id: str,
        who: str,
        since: datetime,
        until: datetime,
        waited_s: float,
    ) -> None:
        still = f"after {waited_s:.0f} s {image} is still" if waited_s else f"{image} is"
        super().__init__(
            f"{still} being baked: bake {bake_id} of {who} has its lock since "
            f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}; it ends with that bake, or at "
            f"{until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} unless renewed",
            hint="--lock-timeout 30m waits; `amibuild reap`, run where a bake died, ends its lock",
        )
        self.image = image
        self.bake_id = bake_id
        self.who = who
        self.since = since
        self.until = until


class ChannelBusy(AmibuildError):
    """Of two moves of a channel at once, the one that did not come through: by whom, and why."""


class HostKeyRefused(AmibuildError):
    """Somebody else may answer in the machine's place: nothing was said to them."""

    def __init__(self, *, host: str, expected: str, seen: str, hint: str | None = None) -> None:
        super().__init__(
            f"{host} has another host key than expected: {seen} was seen, {expected} was expected",
            hint=hint or "nothing was sent to it; is something between here and the machine?",
        )
        self.host = host
        self.expected = expected
        self.seen = seen


class VerifyFailed(AmibuildError):
    """The image boots badly or fails checks; `failures` names each with its first lines."""

    exit_code = 3

    def __init__(self, message: str, *, failures: Sequence[str] = (), hint: str | None = None):
        super().__init__(message, hint=hint)
        self.failures = tuple(failures)


@dataclass(frozen=True)
class Leftover:
    """Something that still exists and should not. `command` removes it by hand."""

    kind: str
    id: str
    region: str
    reason: str
    command: str


class LeftoverError(AmibuildError):
    exit_code = 4

    def __init__(
        self, leftovers: Sequence[Leftover], *, hint: str = "amibuild reap tries again"
    ) -> None:
        lines = [f"{x.kind} {x.id} in {x.region}: {x.reason}\n    {x.command}" for x in leftovers]
        text = "these could not be removed:\n" + "\n".join(lines)
        super().__init__(text, hint=hint)
        self.leftovers = tuple(leftovers)


class Interrupted(BaseException):
    """Not an Exception: botocore and others catch those, and would retry a Ctrl-C."""

    exit_code: ClassVar[int] = 130

    def __init__(self, signal_name: str) -> None:
        super().__init__(f"interrupted by {signal_name}")
        self.signal_name = signal_name
        self.message = str(self)
        self.hint: str | None = None
        self.leftovers: tuple[Leftover, ...] = ()


Failure = AmibuildError | Interrupted
"""What ends a verb on purpose; both carry a message, a hint, leftovers and an exit code."""
