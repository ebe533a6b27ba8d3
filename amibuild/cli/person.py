"""Who sits at the terminal of a bake: what can be asked there, and what is typed."""

from __future__ import annotations

import os
import select
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from amibuild.attended import ANSWER, STRETCHES
from amibuild.cli.options import OnErrorName
from amibuild.errors import UsageError
from amibuild.recipe.document import did_you_mean
from amibuild.wait import Waiting

if TYPE_CHECKING:
    from amibuild.cli.session import Session
    from amibuild.errors import AmibuildError
    from amibuild.journal import Shown
    from amibuild.library.step import BuildStep


class AtTerminal:
    """The questions go where the story goes, which stands still meanwhile."""

    def __init__(self, run: Session) -> None:
        self._run = run
        self._typed = sys.stdin.fileno()

    def show(self, shown: Shown) -> None:
        """The subscriber of a journal: all but the wait for an answer is told."""
        if not (isinstance(shown, Waiting) and shown.what == ANSWER):
            self._run.show(shown)

    def ask(self, text: str, error: AmibuildError | None = None) -> None:
        # What was typed before the question is no answer to it.
        with suppress(termios.error):
            termios.tcflush(self._typed, termios.TCIFLUSH)
        self._run.story.ask(text, error)

    def line(self) -> str | None:
        if not select.select([self._typed], [], [], 0)[0]:
            return None
        try:
            return os.read(self._typed, 4096).decode(errors="replace")
        except OSError:  # the terminal has gone
            return ""


def refuse_unattended(on_error: OnErrorName, pause_before: str | None) -> None:
    """Raises: UsageError where nobody can be asked."""
    if sys.stdin.isatty() and sys.stderr.isatty():
        return
    if on_error is OnErrorName.ASK:
        raise UsageError(
            "--on-error ask needs a terminal to ask at",
            hint="--on-error keep leaves all for `amibuild shell` and `amibuild bake --resume`",
        )
    if pause_before is not None:
        raise UsageError(
            "--pause-before needs a terminal to wait at",
            hint="`amibuild shell BAKE_ID` is a shell on the builder of a running bake",
        )


def check_pause(step: str | None, steps: Sequence[BuildStep]) -> None:
    """Raises: UsageError."""
    known = [*(one.name for one in steps), *STRETCHES]
    if step is not None and step not in known:
        raise UsageError(
            f"--pause-before: there is no step {step}",
            hint=did_you_mean(step, known) or f"there is {', '.join(known)}",
        )
