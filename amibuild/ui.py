"""The story of a run, on stderr: the only file that knows colour.

Subscribes to journal events. On a terminal it is a live view of the steps and of what is waited
for, how long and how long at most; in a pipe or in CI plain lines with the time in front. A
stream that went away ends the story and never the work.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TextIO, cast

from amibuild.errors import Failure, HostError
from amibuild.journal import LeftBehind, Removed, Shown, StepEnded, StepFailed, StepStarted
from amibuild.secret import masked
from amibuild.wait import Waiting
from amibuild.wording import (
    History,
    Line,
    Style,
    duration_text,
    event_line,
    failure_lines,
    question_lines,
    waiting_text,
)

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

# A wait that stays in one state is told again after this long, so that a log shows life.
REPEAT_AFTER_S = 10.0
# Longer than the longest pause between two looks: an older wait has ended without saying so.
FORGET_AFTER_S = 20.0
REFRESH_PER_SECOND = 4


class Story(Protocol):
    """What the verbs talk to."""

    def show(self, shown: Shown) -> None:
        """The subscriber of a journal."""

    def say(self, text: str) -> None:
        """A line of the story."""

    def result(self, text: str) -> None:
        """The result, on stdout, at once."""

    def ask(self, text: str, error: Failure | None = None) -> None:
        """A question, below the failure that it is about. The story stands still until it goes
        on."""

    def failed(self, error: Failure) -> None:
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
        stream: TextIO,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._now = now
        self._monotonic = monotonic
        self._history = History()
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

    def ask(self, text: str, error: Failure | None = None) -> None:
        for line in question_lines(text, error):
            self._stream.write(line.text + "\n")
        self._stream.flush()

    def failed(self, error: Failure) -> None:
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
        self, stream: TextIO, *, color: bool, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        from rich.console import Console

        self._color = color
        self._monotonic = monotonic
        self._history = History()
        self._running: dict[str, tuple[str, float]] = {}
        self._waits: dict[str, _Seen] = {}
        self._console = Console(
            file=stream, force_terminal=True, no_color=not color, highlight=False, markup=False
        )
        if self._console.width < 1:
            # COLUMNS=0, or a terminal that does not know: rich would then print nothing at all.
            self._console.width = 80
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
            case Removed(id=id_) | LeftBehind(id=id_):
                # That wait is over, whatever was last seen.
                self._waits = {what: w for what, w in self._waits.items() if id_ not in what}
                self._tell(event_line(shown))
            case _:
                self._tell(event_line(shown))
        if self._live is not None:
            self._live.refresh()
        elif self._running or self._waits:
            self._start()

    def say(self, text: str) -> None:
        self._tell(Line(text))

    def result(self, text: str) -> None:
        """stdout may be the same terminal: the moving part makes room while it is written."""
        self._stop()
        print_result(text)

    def ask(self, text: str, error: Failure | None = None) -> None:
        self._stop()
        for line in question_lines(text, error):
            self._tell(line)

    def failed(self, error: Failure) -> None:
        self._stop()
        for line in failure_lines(error, self._history):
            self._tell(line)

    def close(self) -> None:
        self._stop()

    def _tell(self, line: Line | None) -> None:
        from rich.text import Text

        if line is not None:
            # Not wrapped by rich: the terminal does it, and a command can be copied whole.
            self._console.print(Text(line.text, style=self._style(line)), soft_wrap=True)

    def _style(self, line: Line) -> str:
        """Without colour none at all: rich's no_color still sends bold and dim."""
        return line.style.value if self._color else ""

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
            text.append(("\n" if number else "") + line.text.split("\n")[0], self._style(line))
        return text


def print_result(text: str) -> None:
    """To stdout and out of the buffer. A reader that has gone is no error: the work is done.

    Raises: HostError when it can't be written otherwise, to a full disk for example.
    """
    try:
        sys.stdout.write(masked(text) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
    except OSError as error:
        _forget_stdout()
        raise HostError(f"the result can't be written to stdout: {error.strerror}") from error


def write_bytes(chunk: bytes) -> bool:
    """To stdout as they are, at once. False when the reader has gone, and nobody needs the rest."""
    try:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _forget_stdout()
        return False
    return True


def write_error_bytes(chunk: bytes) -> bool:
    """The same to stderr."""
    try:
        sys.stderr.buffer.write(chunk)
        sys.stderr.buffer.flush()
    except BrokenPipeError:
        return False
    return True


def _forget_stdout() -> None:
    """What is still buffered would fail again when Python flushes at exit."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


class _QuietStream:
    """A text stream that falls silent when its other end is gone, and can write any character."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding or "ascii"

    def write(self, text: str) -> int:
        safe = masked(text).encode(self.encoding, "backslashreplace").decode(self.encoding)
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


def quiet(stream: TextIO) -> TextIO:
    """The stream, such that writing to it never fails."""
    return cast("TextIO", _QuietStream(stream))
