"""Each stage of a bake, with SIGINT, SIGTERM, removals that are refused, and kill -9 before `reap`.

The difference in the account is nothing, or exactly what was reported, or what `reap` then removes.
tests/contract/test_fault_matrix.py has the calls inside the stages.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from amibuild import signals
from amibuild.errors import Interrupted
from amibuild.journal import Shown, StepStarted, Subscriber
from amibuild.project import Project
from amibuild.reap import reap
from tests.contract import builder
from tests.contract.account import account, attached, await_ends, with_attached
from tests.contract.builder import STAGES, Answers, new_project
from tests.contract.conftest import Aws, Start
from tests.contract.swift import swift

REMOVALS = (
    *("TerminateInstances", "DeleteVolume", "DeregisterImage", "DeleteSnapshot"),
    "DeleteSecurityGroup",
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


def at(stage: str, number: signal.Signals) -> Subscriber:
    """Sends this process that signal when the stage begins."""

    def hear(shown: Shown) -> None:
        if isinstance(shown, StepStarted) and shown.step == stage:
            signal.raise_signal(number)

    return hear


def interrupted(
    project: Project, aws: Aws, stage: str, number: signal.Signals
) -> tuple[set[str], Interrupted]:
    """What there is afterwards that was not there before, and is no result; and what was raised."""
    before = whole(aws)
    with swift(), signals.catch(), pytest.raises(Interrupted) as caught:
        builder.run(project, aws.cloud, at(stage, number))
    after = whole(aws)
    assert before - after == set()
    new = after - before
    if stage == "record":  # the image is proven by then: it is the result
        (image,) = account(aws)["images"]
        new -= with_attached({image}, attached(aws))
    return new, caught.value


def whole(aws: Aws) -> set[str]:
    return set().union(*account(aws).values())


def alternating(*values: Any, at: int) -> Any:
    """Every other one is for `make soak` alone."""
    return pytest.param(*values, marks=[pytest.mark.soak] if at % 2 else [])


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        alternating(stage, number, at=at + turn)
        for at, stage in enumerate(STAGES)
        for turn, number in enumerate((signal.SIGINT, signal.SIGTERM))
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_signal_at_any_stage_leaves_the_account_as_it_was(
    start: Start, project: Project, stage: str, number: signal.Signals
) -> None:
    new, error = interrupted(project, start(script=Answers()), stage, number)
    assert (new, error.leftovers) == (set(), ())
    assert error.signal_name == number.name


@pytest.mark.parametrize("stage", [alternating(s, at=at) for at, s in enumerate(STAGES)])
def test_what_cannot_be_removed_is_reported_exactly_and_reaped(
    start: Start, project: Project, stage: str
) -> None:
    aws = start(*(f"{call}:*=UnauthorizedOperation" for call in REMOVALS), script=Answers())
    new, error = interrupted(project, aws, stage, signal.SIGINT)
    reported = {one.id for one in error.leftovers}
    assert reported <= new <= with_attached(reported, attached(aws))
    assert (new == set()) == (stage in {"preflight", "access"})
    aws.service.scripted.faults.order(())
    assert reap(aws.cloud, project.state_dir, target="local", dry_run=False).left == []
    assert whole(aws) & new == set()


# Between intent and creation, between creation and what follows, and in the clean-up: lock, group,
# builder, image, verify machine, disk copy.
MOMENTS = [
    *STAGES,
    *(f"{event}:{number}" for event in ("intended", "created") for number in range(1, 7)),
    *(f"removed:{number}" for number in range(1, 6)),
]


@pytest.mark.parametrize("moment", [alternating(m, at=at) for at, m in enumerate(MOMENTS)])
def test_after_kill_9_at_any_moment_reap_finds_it_all(
    start: Start, tmp_path: Path, moment: str
) -> None:
    aws = start(script=Answers())
    before = account(aws)
    folder = tmp_path / "project"
    ended = builder.killed_at(moment, aws.service.url, folder)
    assert ended == -signal.SIGKILL, (folder / "said").read_text()
    await_ends(aws)
    there = account(aws)
    with swift():  # for half a minute EC2 may hide what the killed one asked for
        dry = reap(aws.cloud, folder / ".amibuild", target="local", dry_run=True)
        assert account(aws) == there, "a dry run changes nothing"
        report = reap(aws.cloud, folder / ".amibuild", target="local", dry_run=False)
    assert report.left == []
    assert sorted(report.removed) == sorted(dry.would_remove)
    after = account(aws)
    if moment == "record" or moment.startswith("removed:"):
        # Proven by then: the image is the result, whoever writes it down.
        assert len(after.pop("images") - before.pop("images")) == 1
        assert len(after.pop("snapshots") - before.pop("snapshots")) == 1
    assert after == before
    again = reap(aws.cloud, folder / ".amibuild", target="local", dry_run=True)
    assert again.would_remove == []
