"""What a person at the terminal is asked, and what becomes of the answer."""

from __future__ import annotations

import itertools
from contextlib import suppress
from pathlib import Path

import pytest

from amibuild.attended import ANSWER, PATIENCE_S, SUSTAIN_S, Attended
from amibuild.communicator.base import RemoteJob
from amibuild.errors import AmibuildError, HostError, Leftover, StepFailed
from amibuild.journal import Created, Journal, ResourceKind, Shown
from amibuild.scope import OnError
from amibuild.wait import Observer, Waiting
from tests.unit.fakes import STARTED, FakeClock
from tests.unit.test_scope import MACHINE, Account, scope

FAILED = StepFailed(what="os", exit_code=7, reason="ended with exit code 7")


class Typist:
    """Answers in this order; None is a look at which nothing is typed yet."""

    def __init__(self, *lines: str | None) -> None:
        self.lines = list(lines)
        self.asked: list[str] = []
        self.shown: list[AmibuildError] = []

    def ask(self, text: str, error: AmibuildError | None = None) -> None:
        self.asked.append(text)
        if error is not None:
            self.shown.append(error)

    def line(self) -> str | None:
        return self.lines.pop(0) if self.lines else None


class Ends:
    """A step that fails so often, and then ends well."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.ran = 0

    def __call__(self) -> None:
        self.ran += 1
        if self.ran <= self.failures:
            raise FAILED


class Machine:
    def __init__(self) -> None:
        self.jobs: list[str] = []

    def run(self, job: RemoteJob, observer: Observer) -> None:
        self.jobs.append(job.name)
        raise HostError("the network is away")


def asking(person: Typist, clock: FakeClock | None = None) -> Attended:
    return Attended(OnError.ASK, person=person, clock=clock or FakeClock())


def test_a_step_runs_again_for_as_long_as_that_is_wanted() -> None:
    person, step = Typist(None, "r\n", "retry\n"), Ends(2)
    attended = asking(person)
    attended.retried("os", step)
    assert step.ran == 3
    assert person.shown == [FAILED, FAILED]
    assert not attended.has_decided


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [("k\n", OnError.KEEP), ("Keep\n", OnError.KEEP), ("c\n", OnError.CLEAN), ("", OnError.CLEAN)],
)
def test_keep_and_clean_end_it_and_are_asked_once(
    typed: str, wanted: OnError, tmp_path: Path
) -> None:
    account, person, step = Account(), Typist(typed), Ends(9)
    attended = asking(person)
    with (
        Journal(tmp_path / "j") as journal,
        pytest.raises(StepFailed),
        scope(journal, account, OnError.ASK) as owner,
        attended.over(owner, journal),
    ):
        owner.own(MACHINE, "builder", "m", account.make("i-1"))
        attended.retried("os", step)
    assert step.ran == 1
    assert len(person.asked) == 1
    assert attended.on_error is wanted
    assert bool(account.there) is (wanted is OnError.KEEP)


def test_what_is_no_answer_is_asked_again() -> None:
    person, step = Typist("\n", "yes\n", "r\n"), Ends(1)
    asking(person).retried("os", step)
    assert len(person.asked) == 3
    assert len(person.shown) == 1


def test_a_failure_outside_of_steps_can_not_be_retried(tmp_path: Path) -> None:
    account, person = Account(), Typist("r\n", "k\n")
    with (
        Journal(tmp_path / "j") as journal,
        pytest.raises(HostError),
        scope(journal, account, OnError.ASK) as owner,
        asking(person).over(owner, journal),
    ):
        owner.own(MACHINE, "builder", "m", account.make("i-1"))
        raise HostError("x")
    assert account.there
    assert all("retry" not in text and "again" not in text for text in person.asked)


def test_what_waits_for_resume_is_not_asked_about(tmp_path: Path) -> None:
    person, error = Typist(), HostError("late")
    error.leftovers = (Leftover("image", "ami-1", "us-east-1", "late", "aws …"),)
    with (
        Journal(tmp_path / "j") as journal,
        pytest.raises(HostError),
        scope(journal, Account(), OnError.ASK) as owner,
        asking(person).over(owner, journal),
    ):
        raise error
    assert person.asked == []


def test_who_never_answers_is_nobody() -> None:
    clock = FakeClock()
    attended = asking(Typist(), clock)
    with pytest.raises(StepFailed):
        attended.retried("os", Ends(1))
    assert clock.elapsed >= PATIENCE_S
    assert attended.on_error is OnError.CLEAN


@pytest.mark.parametrize("on_error", [OnError.CLEAN, OnError.KEEP])
def test_nobody_is_asked_who_did_not_want_to_be(on_error: OnError, tmp_path: Path) -> None:
    person = Typist()
    attended = Attended(on_error, person=person, pause_before="seal")
    account = Account()
    with (
        Journal(tmp_path / "j") as journal,
        suppress(StepFailed),
        scope(journal, account, on_error) as owner,
        attended.over(owner, journal),
    ):
        owner.own(MACHINE, "builder", "m", account.make("i-1"))
        attended.before("os")
        attended.retried("os", Ends(1))
    assert person.asked == []
    assert bool(account.there) is (on_error is OnError.KEEP)


def test_a_pause_says_where_and_comes_once() -> None:
    person = Typist(None, None, "\n")
    attended = Attended(person=person, pause_before="seal", clock=FakeClock())
    attended.hear(STARTED)
    attended.hear(Created(kind=ResourceKind.INSTANCE, id="i-7", token="t", region="us-east-1"))
    for step in ("os", "seal", "seal"):
        attended.before(step)
    (text,) = person.asked
    assert "before seal" in text
    assert "i-7" in text
    assert "`amibuild shell 20261122-101500-a1b2c3 --recipe /here/amibuild.toml`" in text


def test_time_is_told_and_the_machine_sustained_while_one_thinks(tmp_path: Path) -> None:
    heard: list[Shown] = []
    clock, machine = FakeClock(), Machine()

    class Slow(Typist):
        def line(self) -> str | None:
            return "\n" if clock.elapsed > 3.5 * SUSTAIN_S else None

    attended = Attended(person=Slow(), pause_before="os", clock=clock)
    attended.sustained = machine  # type: ignore[assignment]  # it starts nothing
    with (
        Journal(tmp_path / "j", (heard.append,)) as journal,
        scope(journal, Account()) as owner,
        attended.over(owner, journal),
    ):
        attended.before("os")
    waits = [one for one in heard if isinstance(one, Waiting)]
    assert {one.what for one in waits} == {ANSWER}
    gaps = [b.elapsed_s - a.elapsed_s for a, b in itertools.pairwise(waits)]
    assert max(gaps) < 1
    assert machine.jobs == ["still-there"] * 3


def test_a_removal_does_not_begin_early_when_one_may_want_to_look(tmp_path: Path) -> None:
    account = Account()
    with Journal(tmp_path / "j") as journal, scope(journal, account, OnError.ASK) as owner:
        owner.own(MACHINE, "builder", "m", account.make("i-1"))
        owner.begin_removal("i-1")
        assert account.begun == []
    assert account.there == {}
