"""The dev loop against the endpoint with driver none: which machine, what runs in it, what stays.

Machines are scripted here; tests/local/test_dev_on_machine.py has it on a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from amibuild.bench import Bench, Round
from amibuild.dev import develop, not_restarted, opened
from amibuild.errors import Interrupted, RecipeError, UsageError
from amibuild.journal import (
    JournalBusy,
    Noted,
    Shown,
    StepStarted,
    Subscriber,
    journal_path,
)
from amibuild.local.machines.script import Outcome
from amibuild.names import InstanceId
from amibuild.project import Project, load_project
from amibuild.reap import reap
from amibuild.saved import SAVE
from amibuild.verify.rerun import MISSING
from amibuild.wait import Waiting
from tests.contract import builder
from tests.contract.account import Account, account
from tests.contract.builder import Answers, checks
from tests.contract.conftest import Aws, Start

SCRIPT = "#!/usr/bin/env bash\nset -euo pipefail\n"
RECIPE = """
[image]
name = "game-host"
[source]
ssm = "/aws/service/debian/release/13/latest/amd64"
[provision]
steps = ["first", "second"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for name in ("first", "second"):
        folder = tmp_path / "provisioners" / name
        folder.mkdir(parents=True)
        (folder / "provisioner.toml").write_text(f'purpose = "The {name}"\n')
        (folder / "run.sh").write_text(SCRIPT)
        (folder / f"test_{name}.py").write_text("def test_it(host): pass\n")
    (tmp_path / "amibuild.toml").write_text(RECIPE)
    return load_project(tmp_path / "amibuild.toml")


@pytest.fixture
def answers() -> Answers:
    return Answers({"recheck": checks()})


def save(project: Project, step: str, text: str, name: str = "run.sh") -> Project:
    (project.directory / "provisioners" / step / name).write_text(text)
    return load_project(project.path)


def once(
    aws: Aws,
    project: Project,
    *wanted: str,
    again: Sequence[str] = (),
    fresh: bool = False,
    hear: Subscriber = lambda _: None,
) -> tuple[Bench, Round]:
    with opened(
        project, aws.cloud, wanted, target="local", fresh=fresh, subscribers=(hear,)
    ) as bench:
        return bench, bench.run(project, wanted, again=again)


def new_in(aws: Aws, before: Account) -> dict[str, int]:
    after = account(aws)
    return {kind: len(after[kind] - before[kind]) for kind in ("instances", "groups", "images")}


def names(done: Round) -> list[str]:
    return [run.step.name for run in done.runs]


def test_the_machine_stays_and_the_next_call_goes_on_in_it(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    before = account(aws)
    bench, done = once(aws, project)
    assert names(done) == ["ssm-agent", "first", "second"]
    assert [check.outcome for check in done.checks] == ["passed"]
    answers.jobs.clear()
    same, done = once(aws, project, "second", again=["second"])
    assert (same.machine, same.bake_id) == (bench.machine, bench.bake_id)
    assert names(done) == ["second"]
    assert answers.jobs == ["first-boot", "second", "recheck"]
    assert new_in(aws, before) == {"instances": 1, "groups": 1, "images": 0}


def test_what_was_saved_meanwhile_runs_again_and_nothing_else(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    once(aws, project)
    _, done = once(aws, save(project, "first", f"{SCRIPT}false\n"))
    assert names(done) == ["first"]


def test_what_comes_after_the_steps_that_are_wanted_does_not_run(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    _, done = once(aws, project, "first")
    assert names(done) == ["ssm-agent", "first"]


def test_a_check_that_was_saved_runs_without_its_step(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    with opened(project, aws.cloud, target="local", fresh=False, subscribers=()) as bench:
        bench.run(project, ())
        answers.jobs.clear()
        assert bench.run(project, ()).checks == ()
        bench.run(save(project, "first", "def test_it(host): assert 1\n", "test_first.py"), ())
    assert answers.jobs == ["recheck"]


def test_a_step_that_failed_runs_again_though_it_is_the_same(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    answers.exit_codes = {"first": 7}
    _, done = once(aws, project)
    assert names(done) == ["ssm-agent"]
    assert done.error is not None
    assert "recheck" not in answers.jobs
    answers.exit_codes = {}
    _, done = once(aws, project)
    assert names(done) == ["first", "second"]


class Rebooted(Answers):
    """Has lost what runs the checks, until that is brought again."""

    lost = False

    def __call__(self, script: str) -> Outcome:
        if self.lost:
            gone = "recheck" not in self.jobs
            self.results = {} if gone else {"recheck": checks()}
            self.exit_codes = {"recheck": MISSING} if gone else {}
        return super().__call__(script)


def test_what_runs_the_checks_is_brought_again_to_a_machine_that_lost_it(
    start: Start, project: Project
) -> None:
    answers = Rebooted({"recheck": checks()})
    aws = start(script=answers)
    with opened(project, aws.cloud, target="local", fresh=False, subscribers=()) as bench:
        bench.run(project, ())
        answers.jobs.clear()
        answers.lost = True
        done = bench.run(project, ("second",), again=["second"])
    assert [check.outcome for check in done.checks] == ["passed"]
    assert answers.jobs == ["second", "recheck", "recheck"]


def test_fresh_begins_in_a_new_machine_and_the_old_one_goes(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    before = account(aws)
    old, _ = once(aws, project)
    new, done = once(aws, project, fresh=True)
    assert new.machine != old.machine
    assert names(done) == ["ssm-agent", "first", "second"]
    assert account(aws)["instances"] - before["instances"] == {new.machine}
    assert new_in(aws, before) == {"instances": 1, "groups": 1, "images": 0}


def test_so_does_one_whose_machine_has_ended(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    before = account(aws)
    old, _ = once(aws, project)
    aws.ec2.terminate_instances(InstanceIds=[old.machine])
    aws.until_state(old.machine, "terminated")
    new, _ = once(aws, project)
    assert new.machine != old.machine
    assert new_in(aws, before) == {"instances": 1, "groups": 1, "images": 0}


def test_one_that_there_was_no_room_for_after_all_is_followed_by_the_next(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start("boot:1=Server.InsufficientInstanceCapacity: none left", script=answers)
    before = account(aws)
    bench, _ = once(aws, project)
    assert new_in(aws, before) == {"instances": 1, "groups": 1, "images": 0}
    again, done = once(aws, project)
    assert (again.machine, names(done)) == (bench.machine, [])


def test_an_interrupt_before_there_is_a_machine_leaves_nothing(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    before = account(aws)

    def hear(shown: Shown) -> None:
        if isinstance(shown, StepStarted) and shown.step == "connect":
            raise Interrupted("SIGINT")

    with pytest.raises(Interrupted):
        once(aws, project, hear=hear)
    assert new_in(aws, before) == {"instances": 0, "groups": 0, "images": 0}


def test_one_process_at_a_time_has_the_machine(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    with opened(project, aws.cloud, target="local", fresh=False, subscribers=()):
        with pytest.raises(JournalBusy):
            once(aws, project)
        with pytest.raises(JournalBusy):
            once(aws, project, fresh=True)


def test_it_is_no_bake_to_be_resumed_and_reap_takes_it_when_asked_to(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    before = account(aws)
    bench, _ = once(aws, project)
    with pytest.raises(UsageError, match="is no bake, but `amibuild dev`"):
        builder.run(project, aws.cloud, resume=bench.bake_id)
    reap(aws.cloud, project.state_dir, target="local", dry_run=False)
    assert new_in(aws, before)["instances"] == 1
    reap(aws.cloud, project.state_dir, target="local", dry_run=False, kept=True)
    assert new_in(aws, before) == {"instances": 0, "groups": 0, "images": 0}


def test_a_step_that_is_none_is_told_before_anything_is_made(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    before = account(aws)
    with pytest.raises(UsageError, match="there is no step frist"):
        once(aws, project, "frist")
    assert new_in(aws, before) == {"instances": 0, "groups": 0, "images": 0}
    assert not (project.state_dir / "journals").exists()


def test_one_that_failed_as_something_else_runs_again_when_that_is_taken_back(
    start: Start, project: Project, answers: Answers
) -> None:
    """The machine has half of it: also for the next call."""
    aws = start(script=answers)
    once(aws, project)
    answers.exit_codes = {"first": 7}
    once(aws, save(project, "first", f"{SCRIPT}false\n"))
    answers.exit_codes = {}
    _, done = once(aws, save(project, "first", SCRIPT))
    assert names(done) == ["first"]


def test_what_a_failure_kept_from_being_checked_is_checked_when_it_is_mended(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    checked = Checked()
    with opened(
        project, aws.cloud, target="local", fresh=False, subscribers=(checked.hear,)
    ) as bench:
        bench.run(project, ())
        save(project, "first", f"{SCRIPT}echo other\n")
        answers.exit_codes = {"second": 7}
        both = save(project, "second", f"{SCRIPT}false\n")
        assert names(bench.run(both, ())) == ["first"]
        answers.exit_codes = {}
        heard = checked.run(bench, save(project, "second", f"{SCRIPT}true\n"))
    assert heard == ["of first, second"]


class Checked:
    """Hears of which steps a round runs the checks."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def hear(self, shown: Shown) -> None:
        if isinstance(shown, StepStarted) and shown.step == "checks":
            self.heard.append(shown.what)

    def run(self, bench: Bench, project: Project, *wanted: str) -> list[str]:
        self.heard.clear()
        bench.run(project, wanted)
        return list(self.heard)


def test_a_check_that_failed_runs_again_with_whatever_is_saved_next(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    failed = checks("failed", "E  no")
    failed["checks"][0]["step"] = "second"  # type: ignore[index]
    answers.results = {"recheck": failed}
    checked = Checked()
    with opened(
        project, aws.cloud, target="local", fresh=False, subscribers=(checked.hear,)
    ) as bench:
        assert [check.step for check in bench.run(project, ()).failed] == ["second"]
        answers.results = {"recheck": checks()}
        other = save(project, "first", f"{SCRIPT}echo other\n")
        assert checked.run(bench, other) == ["of first, second"]
        assert checked.run(bench, other) == []


def test_what_is_wanted_is_checked_when_something_that_it_builds_on_was_mended(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    checked = Checked()
    with opened(
        project, aws.cloud, target="local", fresh=False, subscribers=(checked.hear,)
    ) as bench:
        bench.run(project, ("second",))
        other = save(project, "first", f"{SCRIPT}echo other\n")
        assert checked.run(bench, other, "second") == ["of second"]


def test_a_recipe_that_asks_for_another_machine_gets_one_and_is_told_why(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    before = account(aws)
    old, _ = once(aws, project)
    notes: list[str] = []

    def hear(shown: Shown) -> None:
        if isinstance(shown, Noted):
            notes.append(shown.text)

    new, _ = once(aws, load_project(project.path, ["builder.volume_gib=9"]), hear=hear)
    assert new.machine != old.machine
    assert new_in(aws, before) == {"instances": 1, "groups": 1, "images": 0}
    assert notes == [
        f"{old.machine} goes: [source], [builder], [ssh] or [aws] ask for another machine by now"
    ]


def test_the_machine_boots_before_the_checks_when_that_is_wanted(
    start: Start, project: Project
) -> None:
    answers = Booting({"recheck": checks()})
    aws = start(script=answers)
    with opened(project, aws.cloud, target="local", fresh=False, subscribers=()) as bench:
        done = bench.run(project, ("second",), rebooted=True)
    assert done.error is None
    jobs = [job for job in answers.jobs if job != "boot-id"]
    assert jobs[-4:] == ["second", "reboot", "first-boot", "recheck"]


class Booting(Answers):
    """Has another boot id after each reboot."""

    def __call__(self, script: str) -> Outcome:
        self.results = {**self.results, "boot-id": self.jobs.count("reboot")}
        return super().__call__(script)


def test_a_machine_whose_maker_was_killed_stays_as_well_once_somebody_goes_on_in_it(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    before = account(aws)
    bench, _ = once(aws, project)
    journal = journal_path(project.state_dir, bench.bake_id)
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if '"event":"kept"' not in line))
    same, _ = once(aws, project)
    assert same.machine == bench.machine
    reap(aws.cloud, project.state_dir, target="local", dry_run=False)
    assert new_in(aws, before) == {"instances": 1, "groups": 1, "images": 0}


class Editor:
    """What somebody does who watches: one thing at each wait for a save."""

    def __init__(self, *deeds: Callable[[], object]) -> None:
        self.deeds = list(deeds)

    def hear(self, shown: Shown) -> None:
        if isinstance(shown, Waiting) and shown.what == SAVE and shown.elapsed_s < 1:
            if shown.state != "nothing yet":
                return
            if not self.deeds:
                raise Interrupted("SIGINT")
            self.deeds.pop(0)()


def test_each_save_is_a_round_and_a_signal_ends_it(
    start: Start, project: Project, answers: Answers
) -> None:
    aws = start(script=answers)
    rounds: list[list[str]] = []
    refused: list[str] = []
    enter: list[bool] = []

    def tell(done: Round, took: str) -> None:
        rounds.append(names(done))

    def refuse(error: UsageError) -> None:
        told = error.problems[0].problem if isinstance(error, RecipeError) else error.message
        refused.append(told)

    editor = Editor(
        lambda: save(project, "second", f"{SCRIPT}echo other\n"),
        lambda: save(project, "second", f"{SCRIPT}echo another\n"),
        lambda: project.path.write_text(RECIPE.replace("second", "third")),
        lambda: project.path.write_text(RECIPE + "[builder]\nvolume_gib = 9\n"),
        lambda: project.path.write_text(RECIPE),
        lambda: enter.append(True),
    )
    with opened(
        project, aws.cloud, target="local", fresh=False, subscribers=(editor.hear,)
    ) as bench:
        develop(
            bench,
            project,
            ("second",),
            load=lambda: load_project(project.path),
            tell=tell,
            refused=refuse,
            asked=lambda: bool(enter and enter.pop()),
        )
    assert rounds == [["ssm-agent", "first", "second"], ["second"], ["second"], [], ["second"]]
    assert refused == [
        "there is no provisioner called third",
        "[source], [builder], [ssh] or [aws] ask for another machine than this one",
    ]


def test_a_service_that_was_given_another_program_starts_again_in_a_later_call_too(
    start: Start, tmp_path: Path
) -> None:
    """With the first checks after it, which the call that gave it may not have come to."""
    recipe = RECIPE.replace('"first", "second"', "") + 'services = ["minetest"]\n'
    (tmp_path / "amibuild.toml").write_text(recipe)
    project = load_project(tmp_path / "amibuild.toml")
    answers = Answers({})
    aws = start(script=answers)
    bench, done = once(aws, project, "minetest")
    path = journal_path(project.state_dir, bench.bake_id)
    assert done.error is not None, "there was no report"
    assert not_restarted(path, bench.machine, project.steps) == {"minetest.service"}
    assert not_restarted(path, InstanceId("i-another"), project.steps) == set()
    answers.results = {"recheck": checks()}
    once(aws, project, "minetest")
    assert not_restarted(path, bench.machine, project.steps) == set()
