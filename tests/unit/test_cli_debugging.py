"""The verbs of debugging as they are typed, where no machine is needed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from amibuild import proc
from amibuild.attended import ANSWER
from amibuild.cli.completion import logged_steps, steps, steps_before_seal
from amibuild.cli.machine import timeout_of
from amibuild.cli.main import app
from amibuild.cli.person import AtTerminal
from amibuild.errors import UsageError
from amibuild.journal import BakeEnded, Journal, Noted, Outcome, StepStarted, journal_path
from amibuild.wait import Waiting
from tests.unit.fakes import STARTED
from tests.unit.test_bakes import BUILDER, FIRST

BAKE = STARTED.bake_id
RECIPE = '[image]\nname = "game-host"\n[provision]\nsteps = ["os"]\nservices = ["minetest"]\n'


def amibuild(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bake failed here; the log of one of its steps is there, with its secret masked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "amibuild.toml").write_text(RECIPE)
    state = tmp_path / ".amibuild"
    with Journal(journal_path(state, BAKE)) as journal:
        for event in (STARTED, FIRST, BUILDER):
            journal.write(event)
        journal.write(BakeEnded(outcome=Outcome.KEPT, seconds=61))
    (state / "logs" / BAKE).mkdir(parents=True)
    (state / "logs" / BAKE / "os.log").write_bytes(b"key ***\n\xff\n")
    return tmp_path


def test_bakes_are_listed_as_text_and_as_json(folder: Path) -> None:
    (one,) = json.loads(amibuild("bakes", "--json").stdout)["bakes"]
    assert (one["id"], one["state"], one["seconds"]) == (BAKE, "kept", 61)
    assert one["left"] == [{"kind": "instance", "id": "i-1"}]
    lines = amibuild("bakes").stdout.splitlines()
    assert lines[1].split()[:5] == [BAKE, "bake", "game-host", "local", "kept"]


def test_a_story_is_told_again_with_its_times_and_its_end(folder: Path) -> None:
    done = amibuild("logs", BAKE, "--follow")
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        f"10:15:00Z bake {BAKE}  game-host from ami-1 on local (us-east-1)",
        "10:15:01Z preflight  looks",
    ]
    assert lines[-1].endswith("kept after 1m01s")


def test_the_log_of_a_step_comes_as_it_is(folder: Path) -> None:
    assert amibuild("logs", BAKE, "--step", "os").stdout_bytes == b"key ***\n\xff\n"


@pytest.mark.parametrize("step", ["oss", "../../journals/x"])
def test_a_step_without_a_log_is_refused(folder: Path, step: str) -> None:
    done = amibuild("logs", BAKE, "--step", step)
    assert done.exit_code == 2
    assert f"has no log of {step}" in done.stderr
    assert "os" in done.stderr.splitlines()[-1]


def test_a_step_that_runs_has_its_log_on_the_machine(folder: Path) -> None:
    with Journal(journal_path(folder / ".amibuild", "20261123-101500-a1b2c3")) as journal:
        journal.write(STARTED)
        journal.write(StepStarted(step="os", what="updates"))
        done = amibuild("logs", "20261123-101500-a1b2c3", "--step", "os")
    assert done.exit_code == 2
    assert "--follow shows it" in done.stderr


def test_a_dead_bake_is_said_to_be_one(folder: Path) -> None:
    with Journal(journal_path(folder / ".amibuild", "20261123-101500-a1b2c3")) as journal:
        journal.write(STARTED)
    done = amibuild("logs", "20261123-101500-a1b2c3", "-f")
    assert "its process is gone" in done.stderr


@pytest.mark.parametrize("verb", [["logs"], ["shell"], ["run"]])
def test_an_unknown_bake_is_refused_and_the_newest_named(folder: Path, verb: list[str]) -> None:
    more = ["--", "true"] if verb == ["run"] else []
    done = amibuild(*verb, "20200101-000000-000000", *more)
    assert done.exit_code == 2
    assert f"the newest is {BAKE}" in done.stderr


def test_a_command_without_the_dashes_is_told_where_they_stand(folder: Path) -> None:
    done = amibuild("run", BAKE, "ls", "-la")
    assert done.exit_code == 2
    assert "amibuild run BAKE_ID -- ls -la" in " ".join(done.stderr.split())


def test_json_behind_the_dashes_is_the_commands(folder: Path) -> None:
    words = [sys.executable, "-m", "amibuild.cli.main", "run", "no-bake", "--", "lsblk", "--json"]
    done = proc.run(words, cwd=folder, check=False)
    assert done.exit_code == 2
    assert done.stdout == b""


@pytest.mark.parametrize("options", [["--on-error", "ask"], ["--pause-before", "os"]])
def test_nobody_can_be_asked_without_a_terminal(folder: Path, options: list[str]) -> None:
    done = amibuild("bake", *options)
    assert done.exit_code == 2
    assert "needs a terminal" in done.stderr
    assert "hint: " in done.stderr


@pytest.mark.parametrize("text", ["4s", "49h", "x"])
def test_a_time_that_no_command_may_take_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--timeout"):
        timeout_of(text)
    assert timeout_of("1h30m") == 5400


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The near end of a terminal whose far end is our stdin and stderr."""
    near, far = os.openpty()
    with open(far, "rb", buffering=0, closefd=False) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield near
    os.close(near)
    os.close(far)


class Told:
    """A session's story, as lines."""

    def __init__(self) -> None:
        self.story = self
        self.asked: list[str] = []
        self.shown: list[object] = []

    def ask(self, text: str, error: object = None) -> None:
        self.asked.append(text)

    def show(self, shown: object) -> None:
        self.shown.append(shown)


def test_only_what_is_typed_after_the_question_is_an_answer(terminal: int) -> None:
    told: Any = Told()
    person = AtTerminal(told)
    os.write(terminal, b"impatient\n")
    person.ask("what?")
    assert person.line() is None
    os.write(terminal, b"r\n")
    assert person.line() == "r\n"
    assert told.asked == ["what?"]


def test_a_terminal_that_has_gone_is_nobody(terminal: int) -> None:
    told: Any = Told()
    person = AtTerminal(told)
    os.write(terminal, b"\x04")
    assert person.line() == ""


def test_the_wait_for_an_answer_is_not_a_part_of_the_story(terminal: int) -> None:
    told: Any = Told()
    person = AtTerminal(told)
    other = Waiting("i-1", "pending", 1, 2)
    for shown in (Waiting(ANSWER, "nothing yet", 1, 2), other, Noted(text="x")):
        person.show(shown)
    assert [type(one).__name__ for one in told.shown] == ["Waiting", "Noted"]
    assert told.shown[0] == other


def test_completion_offers_the_steps_of_the_recipe_and_of_a_bakes_logs(folder: Path) -> None:
    context: Any = SimpleNamespace(
        params={"recipe": str(folder / "amibuild.toml"), "bake_id": BAKE}
    )
    assert steps(context, "") == ["os", "minetest", "seal"]
    assert steps(context, "m") == ["minetest"]
    assert logged_steps(context, "") == ["os"]
    (folder / "amibuild.toml").write_text("[provision\n")
    assert steps(context, "") == ["seal"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--json",), "--once"),
        (("--once", "--machine", "none"), "--machine none"),
        (("--once", "--recipe", "other.toml"), "other.toml"),
    ],
)
def test_a_dev_loop_that_can_not_be_is_refused_before_anything_begins(
    folder: Path, words: tuple[str, ...], told: str
) -> None:
    done = amibuild("dev", "os", *words)
    assert done.exit_code == 2
    assert told in done.stderr
    assert len(list((folder / ".amibuild" / "journals").iterdir())) == 1


def test_the_dev_loop_is_offered_the_steps_that_run_before_seal(folder: Path) -> None:
    context: Any = SimpleNamespace(params={})
    assert steps(context, "s") == ["seal"]
    assert steps_before_seal(context, "") == ["os", "minetest"]
