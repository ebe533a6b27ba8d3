"""What every verb stands in: the story on stderr, signals, errors to exit codes, JSON."""

from __future__ import annotations

import errno
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

import typer

from amibuild import signals
from amibuild.errors import (
    AmibuildError,
    CommandFailed,
    Failure,
    HostError,
    Interrupted,
    LeftoverError,
    PromotionRefused,
    RecipeError,
    VerifyFailed,
)

if TYPE_CHECKING:
    from amibuild.journal import Shown
    from amibuild.ui import Story

LEFTOVERS = LeftoverError.exit_code
HOST_ERRNOS = frozenset(
    {
        errno.EACCES,
        errno.EBADF,
        errno.EDQUOT,
        errno.EEXIST,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)


@dataclass
class Common:
    """Options that stand before the verb, or anywhere."""

    debug: bool = False
    color: bool = True


class Session:
    """One run of one verb. `story` is for the way there, `result` for what stdout gets."""

    def __init__(self, story: Story, *, as_json: bool) -> None:
        self.story = story
        self.as_json = as_json
        self.answered = False
        self.bake_id: str | None = None
        self.kept: list[tuple[str, str]] = []

    def show(self, shown: Shown) -> None:
        """The subscriber of a journal: tells the story, and notes what a failure's JSON needs."""
        from amibuild.journal import KEPT_FOR_LATER, BakeStarted, Kept

        match shown:
            case BakeStarted(bake_id=bake_id):
                self.bake_id = bake_id
            case Kept(kind=kind, id=id_, why=why) if why in KEPT_FOR_LATER:
                self.kept.append((kind, id_))
            case _:
                pass
        self.story.show(shown)

    def result(self, text: str, data: Any) -> None:
        """Prints the result once: `text`, or with --json `data` as one object."""
        self.answered = True
        shown = json.dumps(data, indent=2) if self.as_json else text
        if shown:
            self.story.result(shown)


@contextmanager
def session(context: typer.Context, *, as_json: bool) -> Iterator[Session]:
    """Errors end here: their report goes to stderr, and the exit code is chosen.

    With --json a failure is an object too, unless the result was already out.
    """
    from amibuild.ui import open_story, quiet

    common: Common = context.obj or Common()
    _log(quiet(sys.stderr), debug=common.debug)
    with signals.catch(), open_story(color=common.color, live=not common.debug) as story:
        run = Session(story, as_json=as_json)
        try:
            with _of_the_host():
                yield run
        except (AmibuildError, Interrupted) as error:
            if common.debug:
                logging.getLogger(__name__).debug("failed", exc_info=error)
            story.failed(error)
            if as_json and not run.answered:
                run.result("", failure_json(error, run))
            raise typer.Exit(exit_code(error)) from None


@contextmanager
def _of_the_host() -> Iterator[None]:
    """A full disk or a folder that may not be written to is no bug, and needs no traceback."""
    try:
        yield
    except OSError as error:
        if error.errno not in HOST_ERRNOS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise HostError(f"{where}{error.strerror}") from error


def exit_code(error: Failure) -> int:
    """Something left in the account is the worst, whatever came before it."""
    return LEFTOVERS if error.leftovers else error.exit_code


def failure_json(error: Failure, run: Session) -> dict[str, Any]:
    """What `--json` prints instead of a result."""
    body: dict[str, Any] = {
        "kind": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "exit_code": exit_code(error),
    }
    if isinstance(error, RecipeError):
        body["problems"] = [
            {
                "path": str(p.path),
                "line": p.line,
                "key": p.key,
                "problem": p.problem,
                "suggestion": p.suggestion,
            }
            for p in error.problems
        ]
    if isinstance(error, PromotionRefused):
        body["reasons"] = list(error.reasons)
        body["flags"] = [flag or None for flag in error.flags]
    if run.bake_id is not None:
        body["bake_id"] = run.bake_id
    if run.kept:
        body["kept"] = [{"kind": str(kind), "id": id_} for kind, id_ in run.kept]
    if isinstance(error, CommandFailed):
        body["command_exit_code"] = error.command_exit_code
        body["log"] = str(error.log) if error.log else None
        body["tail"] = list(error.tail)
    if isinstance(error, VerifyFailed):
        body["failures"] = list(error.failures)
    if error.leftovers:
        body["leftovers"] = [
            {"kind": x.kind, "id": x.id, "region": x.region, "command": x.command}
            for x in error.leftovers
        ]
    return {"error": body}


def _log(stream: TextIO, *, debug: bool) -> None:
    """Library code logs; the story is told by events. botocore's own debug lines hold secrets."""
    logging.basicConfig(
        stream=stream,
        level=logging.WARNING,
        format="%(asctime)s %(name)s: %(message)s",
    )
    logging.getLogger("amibuild").setLevel(logging.DEBUG if debug else logging.WARNING)
