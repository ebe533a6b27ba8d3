"""Events and errors as lines of text: what the story says, without how it looks.

`ui.py` draws them. Nothing here knows a terminal.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from amibuild.channel_lines import Moved, Moving, Pruning, Revoking
from amibuild.errors import (
    CommandFailed,
    Failure,
    Interrupted,
    LeftoverError,
    RecipeError,
    UsageError,
    VerifyFailed,
)
from amibuild.journal import (
    KEPT_FOR_LATER,
    KEPT_TO_RESUME,
    Abandoned,
    BakeEnded,
    BakeStarted,
    Created,
    Found,
    Given,
    Intended,
    Kept,
    LeftBehind,
    Noted,
    Outcome,
    Removed,
    ResourceKind,
    Shown,
    StepEnded,
    StepFailed,
    StepRan,
    StepStarted,
)
from amibuild.wait import Waiting

TAIL_LINES = 20
COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]")


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
class History:
    """What happened so far, for the report of a failure."""

    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left: dict[str, LeftBehind] = field(default_factory=dict)
    of: tuple[str, ...] = ()
    """What names the recipe and the target of the bake to a verb."""
    flow: str = "bake"
    bake_id: str = ""
    overrides: tuple[str, ...] = ()

    def note(self, shown: Shown) -> None:
        match shown:
            case BakeStarted(bake_id=bake_id, recipe=recipe, target=target, overrides=given):
                self.bake_id, self.of = bake_id, (recipe, "--target", target)
                self.flow, self.overrides = shown.flow, given
            case Removed(kind=kind, id=id_) if kind is not ResourceKind.LOCK:
                self.removed.append(f"{kind} {id_}")
            case Kept(kind=kind, id=id_, why=why) if why in KEPT_FOR_LATER:
                self.kept.append(f"{kind} {id_}")
            case LeftBehind(id=id_):
                self.left[id_] = shown
            case _:
                pass

    def reap(self, *options: str) -> str:
        """The command that removes what this bake left."""
        return shlex.join(["amibuild", "reap", *self.of, *options])

    def resume(self) -> str:
        """The command that goes on with it."""
        given = [word for one in self.overrides for word in ("--set", one)]
        if self.flow != "bake":
            return shlex.join(["amibuild", self.flow, "--recipe", self.of[0], *given])
        keep = ("--on-error", "keep")
        return shlex.join(["amibuild", "bake", *self.of, *given, *keep, "--resume", self.bake_id])


def waiting_text(what: str, state: str, elapsed_s: float, timeout_s: float) -> str:
    return f"{what}  {state}  {elapsed_s:.0f}s of {timeout_s:.0f}s"


def duration_text(seconds: float) -> str:
    """Rounded before it is parted, so that no part is ever 60."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m{rest:02d}s" if hours else f"{minutes}m{rest:02d}s"


def event_line(event: Shown) -> Line | None:
    """An event as a line of the story; None for those that only `reap` needs."""
    match event:
        case BakeStarted(flow=flow) if flow != "bake":
            return Line(f"{flow} {event.bake_id}  on {event.target} ({event.region})")
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
        case Created(kind=ResourceKind.LOCK) | Removed(kind=ResourceKind.LOCK):
            return None  # with each bake, and it costs nothing
        case Created():
            how = "taken over" if event.again else "created"
            return Line(f"  {event.kind} {event.id} {how}", Style.DIM)
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
        case Moved():
            return Line(f"  {event.channel} has {event.image}, version {event.version}", Style.DIM)
        case BakeEnded(outcome=Outcome.DONE):
            return Line(f"done in {duration_text(event.seconds)}", Style.GOOD)
        case Moving() | Revoking() | Pruning() | BakeEnded() | StepRan():
            return None
        case Given() | Found() | Intended() | Abandoned() | Waiting():
            return None


def journal_line(event: Shown) -> Line | None:
    """An event as it is told afterwards, when nothing else tells how the bake ended."""
    match event:
        case BakeEnded(outcome=outcome) if outcome is not Outcome.DONE:
            return Line(f"{outcome} after {duration_text(event.seconds)}", Style.BAD)
        case _:
            return event_line(event)


def failure_lines(error: Failure, history: History | None = None) -> Sequence[Line]:
    """The whole report of a failure, top to bottom."""
    history = history or History()
    lines = _problem_lines(error) if isinstance(error, RecipeError) else []
    lines = lines or [Line(_headline(error), Style.BAD)]
    if isinstance(error, CommandFailed):
        if error.tail:
            lines.append(Line(f"the last {len(error.tail[-TAIL_LINES:])} lines of its output:"))
            tail = map(_harmless, error.tail[-TAIL_LINES:])
            lines += [Line(f"  | {line}", Style.DIM) for line in tail]
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
        command = history.reap("--kept")
        lines.append(Line(f"kept: {', '.join(history.kept)}"))
        lines.append(Line(f"    `{history.resume()}` goes on from there, `{command}` removes it"))
    for left in error.leftovers:
        if left.reason == KEPT_TO_RESUME:
            continue  # told above
        lines.append(
            Line(f"not cleaned: {left.kind} {left.id} in {left.region}: {left.reason}", Style.BAD)
        )
        lines.append(Line(f"    {left.command}"))
    if error.leftovers and not error.hint:
        lines.append(Line(f"hint: `{history.reap()}` tries again", Style.HINT))
    if error.hint:
        lines.append(Line(f"hint: {error.hint}", Style.HINT))
    return lines


def question_lines(text: str, error: Failure | None) -> list[Line]:
    """What a person at the terminal is asked, below what it is about."""
    return [*(failure_lines(error) if error else ()), Line(text, Style.HINT)]


def _problem_lines(error: RecipeError) -> list[Line]:
    """Each mistake, and below it its line of the file with a mark under the place."""
    lines = []
    for problem in error.problems:
        lines.append(Line(str(problem), Style.BAD))
        if problem.line and (shown := problem.excerpt):
            margin = f"{problem.line:>6} | "
            before = " " * _cells(shown.text[: shown.at])
            mark = "^" * max(_cells(shown.text[shown.at : shown.at + shown.width]), 1)
            lines.append(Line(margin + shown.text, Style.DIM))
            lines.append(Line(f"{'| ':>{len(margin)}}{before}{mark}", Style.DIM))
    return lines


def _harmless(line: str) -> str:
    """A machine's output, without what a terminal would obey: its colours go, the rest shows."""
    plain = COLOUR.sub("", line).expandtabs()
    return "".join(c if c.isprintable() else "\ufffd" for c in plain)


def _cells(text: str) -> int:
    """How wide a terminal shows it."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def _headline(error: Failure) -> str:
    match error:
        case Interrupted():
            return error.message
        case LeftoverError():
            return f"{len(error.leftovers)} things could not be removed"
        case UsageError():
            return f"error: {error.message}"
        case _:
            return f"failed: {error.message}"
