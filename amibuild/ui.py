"""The story of a run, on stderr: the only file that knows colour.

Subscribes to journal events. On a terminal it is a live view of the steps and of what is waited
for, how long and how long at most; in a pipe or in CI plain lines with the time in front. A
stream that went away ends the story and never the work.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import IO, TYPE_CHECKING, Protocol, cast

from amibuild.errors import (
    AmibuildError,
    CommandFailed,
    Interrupted,
    LeftoverError,
    RecipeError,
    UsageError,
    VerifyFailed,
)
from amibuild.journal import (
    Abandoned,
    BakeEnded,
    BakeStarted,
    Created,
    Intended,
    Kept,
    LeftBehind,
    Noted,
    Outcome,
    Removed,
    Shown,
    StepEnded,
    StepFailed,
    StepStarted,
)
from amibuild.wait import Waiting

if TYPE_CHECKING:
    from rich.live import Live

TAIL_LINES = 20
# A wait that stays in one state is told again after this long, so that a log shows life.
REPEAT_AFTER_S = 10.0
# Longer than the longest pause between two looks: an older wait has ended without saying so.
FORGET_AFTER_S = 20.0
REFRESH_PER_SECOND = 4


class Style(Enum):
    """What a line is; the values are rich's names."""

    PLAIN = ""
    DIM = "dim"
    GOOD = "green"
    BAD = "bold red"
    HINT = "yellow"


@dataclass(frozen=True)
class Line:
    text: str
    style: Style = Style.PLAIN


@dataclass
class _History:
    """What happened so far, for the report of a failure."""

    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left: dict[str, LeftBehind] = field(default_factory=dict)

    def note(self, shown: Shown) -> None:
        match shown:
            case Removed(kind=kind, id=id_):
                self.removed.append(f"{kind} {id_}")
            case Kept(kind=kind, id=id_):
                self.kept.append(f"{kind} {id_}")
            case LeftBehind(id=id_):
                self.left[id_] = shown
            case _:
                pass


class Story(Protocol):
    """What the verbs talk to."""

    def show(self, shown: Shown) -> None:
        """The subscriber of a journal."""

    def say(self, text: str) -> None:
        """A line of the story."""

    def result(self, text: str) -> None:
        """The result, on stdout, at once."""

    def failed(self, error: AmibuildError) -> None:
        """The report of a failure: what, the last output, the log, what is left, what to do."""


@contextmanager
def open_story(
    *, color: bool, live: bool = True, environ: Mapping[str, str] | None = None
) -> Iterator[Story]:
    """The live view when stderr is a terminal that can move its cursor, else plain lines."""
    environ = os.environ if environ is None else environ
    stream = quiet(sys.stderr)
    able = stream.isatty() and environ.get("TERM", "dumb") != "dumb" and not environ.get("CI")
    if not (live and able):
        yield Plain(stream)
        return
    story = LiveView(stream, color=color and not environ.get("NO_COLOR"))
    try:
        yield story
    finally:
        story.close()


class Plain:
    """Lines with the time in front: for pipes, CI, and `--debug`."""

    def __init__(
        self,
        stream: IO[str],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._now = now
        self._monotonic = monotonic
        self._history = _History()
        self._told: dict[str, tuple[str, float]] = {}

    def show(self, shown: Shown) -> None:
        self._history.note(shown)
        if isinstance(shown, Waiting):
            if self._worth_telling(shown):
                self.say(waiting_text(shown.what, shown.state, shown.elapsed_s, shown.timeout_s))
            return
        line = event_line(shown)
        if line is not None:
            self.say(line.text)

    def say(self, text: str) -> None:
        for line in text.splitlines():
            self._stream.write(f"{self._now():%H:%M:%S}Z {line}\n")
        self._stream.flush()

    def result(self, text: str) -> None:
        print_result(text)

    def failed(self, error: AmibuildError) -> None:
        for line in failure_lines(error, self._history):
            self._stream.write(line.text + "\n")
        self._stream.flush()

    def _worth_telling(self, waiting: Waiting) -> bool:
        now = self._monotonic()
        state, at = self._told.get(waiting.what, ("", -REPEAT_AFTER_S))
        if waiting.state == state and now - at < REPEAT_AFTER_S:
            return False
        self._told[waiting.what] = (waiting.state, now)
        return True


@dataclass(frozen=True)
class _Seen:
    waiting: Waiting
    at: float


class LiveView:
    """On a terminal: what is over stands above, what goes on is redrawn below."""

    def __init__(
        self, stream: IO[str], *, color: bool, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        from rich.console import Console

        self._monotonic = monotonic
        self._history = _History()
        self._running: dict[str, tuple[str, float]] = {}
        self._waits: dict[str, _Seen] = {}
        self._console = Console(
            file=stream, force_terminal=True, no_color=not color, highlight=False, markup=False
        )
        self._live: Live | None = None

    def show(self, shown: Shown) -> None:
        self._history.note(shown)
        match shown:
            case Waiting(what=what):
                self._waits[what] = _Seen(shown, self._monotonic())
            case StepStarted(step=step, what=what):
                self._running[step] = (what, self._monotonic())
            case StepEnded(step=step) | StepFailed(step=step):
                self._running.pop(step, None)
                self._waits.clear()
                self._tell(event_line(shown))
            case _:
                self._tell(event_line(shown))
        if self._live is None and (self._running or self._waits):
            self._start()

    def say(self, text: str) -> None:
        self._tell(Line(text))

    def result(self, text: str) -> None:
        """stdout may be the same terminal: the moving part makes room while it is written."""
        self._stop()
        print_result(text)

    def failed(self, error: AmibuildError) -> None:
        self._stop()
        for line in failure_lines(error, self._history):
            self._tell(line)

    def close(self) -> None:
        self._stop()

    def _tell(self, line: Line | None) -> None:
        from rich.text import Text

        if line is not None:
            # Not wrapped by rich: the terminal does it, and a command can be copied whole.
            self._console.print(Text(line.text, style=line.style.value), soft_wrap=True)

    def _start(self) -> None:
        from rich.live import Live

        self._live = Live(
            console=self._console,
            get_renderable=self.render,
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
            # rich would send stdout to this console, which is stderr.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def render(self) -> Text:
        """The moving part: one line for each step that runs and each wait, cut at the edge."""
        from rich.text import Text

        now = self._monotonic()
        text = Text(no_wrap=True, overflow="crop", end="")
        lines = [
            Line(f"{step}  {duration_text(now - began)}  {what}", Style.GOOD)
            for step, (what, began) in list(self._running.items())
        ]
        for seen in list(self._waits.values()):
            since = now - seen.at
            if since < FORGET_AFTER_S:
                w = seen.waiting
                told = waiting_text(w.what, w.state, w.elapsed_s + since, w.timeout_s)
                lines.append(Line(f"  {told}", Style.DIM))
        for number, line in enumerate(lines):
            text.append(("\n" if number else "") + line.text.split("\n")[0], line.style.value)
        return text


def waiting_text(what: str, state: str, elapsed_s: float, timeout_s: float) -> str:
    return f"{what}  {state}  {elapsed_s:.0f}s of {timeout_s:.0f}s"


def duration_text(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 60 else f"{seconds // 60:.0f}m{seconds % 60:02.0f}s"


def event_line(event: Shown) -> Line | None:
    """An event as a line of the story; None for those that only `reap` needs."""
    match event:
        case BakeStarted():
            return Line(
                f"bake {event.bake_id}  {event.image} from {event.source_ami} on {event.target}"
                f" ({event.region})"
            )
        case StepStarted():
            return Line(f"{event.step}  {event.what}")
        case StepEnded():
            detail = f"  {event.detail}" if event.detail else ""
            return Line(f"{event.step}  done in {duration_text(event.seconds)}{detail}", Style.GOOD)
        case StepFailed():
            first = event.error.split("\n")[0]
            took = duration_text(event.seconds)
            return Line(f"{event.step}  failed after {took}: {first}", Style.BAD)
        case Created():
            return Line(f"  {event.kind} {event.id} created", Style.DIM)
        case Removed():
            return Line(f"  {event.kind} {event.id} removed", Style.DIM)
        case Kept():
            return Line(f"  {event.kind} {event.id} stays: {event.why}", Style.DIM)
        case LeftBehind():
            return Line(
                f"  {event.kind} {event.id} could not be removed: {event.reason}", Style.BAD
            )
        case Noted():
            return Line(f"  {event.text}")
        case BakeEnded(outcome=Outcome.DONE):
            return Line(f"done in {duration_text(event.seconds)}", Style.GOOD)
        case BakeEnded() | Intended() | Abandoned() | Waiting():
            return None


def failure_lines(error: AmibuildError, history: _History | None = None) -> Sequence[Line]:
    """The whole report of a failure, top to bottom."""
    history = history or _History()
    lines = [Line(_headline(error), Style.BAD)]
    if isinstance(error, CommandFailed):
        if error.tail:
            lines.append(Line(f"the last {len(error.tail[-TAIL_LINES:])} lines of its output:"))
            lines += [Line(f"  | {line}", Style.DIM) for line in error.tail[-TAIL_LINES:]]
        if error.log is not None:
            lines.append(Line(f"log: {error.log}"))
    if isinstance(error, VerifyFailed):
        lines += [Line(f"  | {text}", Style.DIM) for f in error.failures for text in f.split("\n")]
    if not isinstance(error, LeftoverError):
        notes = [note for note in getattr(error, "__notes__", []) if "\n" not in note]
        lines += [Line(f"note: {note}") for note in notes]
    if history.removed:
        lines.append(Line(f"cleaned: {', '.join(history.removed)}"))
    if history.kept:
        lines.append(Line(f"kept: {', '.join(history.kept)}; `amibuild reap` removes it"))
    for left in error.leftovers:
        lines.append(
            Line(f"not cleaned: {left.kind} {left.id} in {left.region}: {left.reason}", Style.BAD)
        )
        lines.append(Line(f"    {left.command}"))
    if error.hint:
        lines.append(Line(f"hint: {error.hint}", Style.HINT))
    return lines


def _headline(error: AmibuildError) -> str:
    match error:
        case RecipeError():
            return error.message
        case Interrupted():
            return error.message
        case LeftoverError():
            return f"{len(error.leftovers)} things could not be removed"
        case UsageError():
            return f"error: {error.message}"
        case _:
            return f"failed: {error.message}"


def print_result(text: str) -> None:
    """To stdout and out of the buffer. A reader that has gone is no error: the work is done."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would fail again when Python flushes at exit.
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)


class _QuietStream:
    """A text stream that falls silent when its other end is gone, and can write any character."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.encoding = stream.encoding or "ascii"

    def write(self, text: str) -> int:
        safe = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        with suppress(OSError, ValueError):
            self._stream.write(safe)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        with suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def fileno(self) -> int:
        return self._stream.fileno()


def quiet(stream: IO[str]) -> IO[str]:
    """The stream, such that writing to it never fails."""
    return cast("IO[str]", _QuietStream(stream))
