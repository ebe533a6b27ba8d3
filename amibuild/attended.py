"""A bake that somebody watches: asked before a step, and when something fails.

While a person thinks, time passes: each look for an answer is told like that of any wait, so that
what the bake has made keeps its lease and its lock, and its machine hears a job now and then.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Protocol, TypeVar

from amibuild.communicator.base import Communicator, RemoteJob
from amibuild.errors import AmibuildError, CommandFailed, WaitTimeout
from amibuild.journal import BakeStarted, Created, Journal, ResourceKind, Shown
from amibuild.scope import OnError, Scope
from amibuild.wait import Clock, Look, Observer, Waiting, silent, until

T = TypeVar("T")
log = logging.getLogger(__name__)

# What is waited for: the story shows the question instead.
ANSWER = "an answer"
# Nobody is there who has not answered for so long: then it is as without anybody.
PATIENCE_S = 24 * 3600.0
# Somebody who has pressed Enter wants to see it.
LOOK_AGAIN_S = 0.3
# A machine ends itself an hour after its last job at the earliest.
SUSTAIN_S = 600.0
# The stretches that are no steps and stand behind the first of these, where there is a builder.
STRETCHES = ("inventory", "shutdown", "capture", "verify", "distribute")


class Answer(StrEnum):
    RETRY = "retry"
    KEEP = "keep"
    CLEAN = "clean"


class Person(Protocol):
    """Who sits at the terminal."""

    def ask(self, text: str, error: AmibuildError | None = None) -> None:
        """Shows a question, below what has failed."""

    def line(self) -> str | None:
        """What was typed, up to Enter; None when that is nothing yet, empty when there is nobody
        any more."""


class Attended:
    """What one bake asks, and what was said. Without a person nobody is asked.

    `sustained` is a machine that is not to end for want of work while somebody thinks.
    """

    def __init__(
        self,
        on_error: OnError = OnError.CLEAN,
        *,
        person: Person | None = None,
        pause_before: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._asks = person is not None and on_error is OnError.ASK
        self._said = on_error
        self._person = person
        self._pause_before = pause_before
        self._clock = clock
        self._observer: Observer = silent
        self.sustained: Communicator | None = None
        self._shell = ""
        self._machine = ""

    @property
    def on_error(self) -> OnError:
        """What is done about a failure, as far as that is known now."""
        return OnError.CLEAN if self._said is OnError.ASK else self._said

    @property
    def has_decided(self) -> bool:
        """Whether somebody was asked, and wants an end."""
        return self._asks and self._said is not OnError.ASK

    def hear(self, shown: Shown) -> None:
        """The subscriber of the journal: where a question is asked about."""
        match shown:
            case BakeStarted(bake_id=bake_id, recipe=recipe):
                self._shell = shlex.join(["amibuild", "shell", bake_id, "--recipe", recipe])
            case Created(kind=ResourceKind.INSTANCE, id=id_):
                self._machine = id_
            case _:
                pass

    @contextmanager
    def over(self, scope: Scope, journal: Journal) -> Iterator[None]:
        """Around all that may fail: the scope learns what is to be done about it."""
        self._observer = journal.show
        try:
            yield
        except AmibuildError as error:
            # What waits for --resume stays in any case, and is told already.
            if self._asks and not self.has_decided and not error.leftovers:
                self._decide(error, {"k": Answer.KEEP, "c": Answer.CLEAN})
            raise
        finally:
            scope.decide(self.on_error)

    def before(self, step: str) -> None:
        """Waits for Enter, once, where somebody wanted that before this step."""
        if self._person is None or step != self._pause_before:
            return
        self._pause_before = None
        self._person.ask(
            f"paused before {step}; the machine is {self._machine or 'not there yet'}: "
            f"`{self._shell}` is a shell on it. Enter goes on, Ctrl-C cleans up"
        )
        self._wait(lambda _: True)

    def retried(self, step: str, run: Callable[[], None]) -> None:
        """Runs a step, and again for as long as somebody wants that. Raises: what it raises."""
        while True:
            try:
                return run()
            except (CommandFailed, WaitTimeout) as error:
                choices = {"r": Answer.RETRY, "k": Answer.KEEP, "c": Answer.CLEAN}
                if not self._asks or self._decide(error, choices, step) is not Answer.RETRY:
                    raise

    def _decide(
        self, error: AmibuildError, choices: Mapping[str, Answer], step: str = ""
    ) -> Answer:
        meaning = {
            Answer.RETRY: f"runs {step} again as it is",
            Answer.KEEP: f"keeps all for `{self._shell}` and for --resume with mended steps",
            Answer.CLEAN: "cleans up",
        }
        question = ", ".join(f"{key} {meaning[answer]}" for key, answer in choices.items())
        person = self._person
        assert person is not None

        def understood(line: str) -> Answer | None:
            if not line:
                return Answer.CLEAN
            word = line.strip().lower()
            for key, answer in choices.items():
                if word in {key, answer.value}:
                    return answer
            person.ask(f"what shall be done? {question}")
            return None

        person.ask(f"what shall be done? {question}", error)
        try:
            answer = self._wait(understood)
        except WaitTimeout:
            answer = Answer.CLEAN
        if answer is not Answer.RETRY:
            self._said = OnError(answer.value)
        return answer

    def _wait(self, understood: Callable[[str], T | None]) -> T:
        """Raises: WaitTimeout."""
        person, sustained_s = self._person, 0.0
        assert person is not None

        def look() -> Look[T]:
            line = person.line()
            return Look("nothing yet", None if line is None else understood(line))

        def hear(waiting: Waiting) -> None:
            nonlocal sustained_s
            self._observer(waiting)
            if waiting.elapsed_s - sustained_s >= SUSTAIN_S:
                sustained_s = waiting.elapsed_s
                self._sustain()

        return until(
            look,
            what=ANSWER,
            timeout_s=PATIENCE_S,
            clock=self._clock,
            observer=hear,
            longest_s=LOOK_AGAIN_S,
        )

    def _sustain(self) -> None:
        if self.sustained is not None:
            still_there(self.sustained, self._machine)


def still_there(communicator: Communicator, machine: str) -> None:
    """A job that does nothing: each sets the machine's timer back."""
    try:
        communicator.run(RemoteJob("still-there", ":\n", timeout_s=60), silent)
    except AmibuildError as error:
        log.warning("%s does not answer while it waits: %s", machine, error.message)
