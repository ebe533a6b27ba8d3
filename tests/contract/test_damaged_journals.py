"""`reap` over damaged journals: what their whole lines tell is found, and no more is touched."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from amibuild.errors import CommandFailed
from amibuild.project import Project
from amibuild.reap import reap
from amibuild.scope import OnError
from tests.contract import builder
from tests.contract.account import account
from tests.contract.builder import Answers, new_project
from tests.contract.conftest import Aws, Start

FLIPS = 60


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


def left_by_a_bake(aws: Aws, project: Project) -> Path:
    """The journal of a bake that left its machine and group."""
    with pytest.raises(CommandFailed):
        builder.run(project, aws.cloud, on_error=OnError.KEEP)
    (path,) = (project.state_dir / "journals").iterdir()
    return path


def made(path: Path, first: int = 0) -> set[str]:
    """What it has made and not removed: its lock is released at its end."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()[first:]]
    gone = {line["id"] for line in lines if line["event"] == "removed"}
    return {line["id"] for line in lines if line["event"] == "created"} - gone


def test_a_journal_that_lost_its_first_line_is_still_cleaned_up(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers(exit_codes={"os": 3}))
    before = account(aws)
    path = left_by_a_bake(aws, project)
    path.write_bytes(b"\0" * 40 + path.read_bytes()[40:])
    dry = reap(aws.cloud, project.state_dir, target="local", dry_run=True, kept=True)
    assert {one.id for one in dry.would_remove} == made(path, 1)
    done = reap(aws.cloud, project.state_dir, target="local", dry_run=False, kept=True)
    assert sorted(done.removed) == sorted(dry.would_remove)
    assert (done.left, done.elsewhere) == ([], [])
    assert account(aws) == before


def test_what_such_a_journal_tells_of_another_target_is_left_for_that(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers(exit_codes={"os": 3}))
    path = left_by_a_bake(aws, project)
    elsewhere = path.with_name("elsewhere.jsonl")
    elsewhere.write_bytes(path.read_bytes().partition(b"\n")[2])
    text = elsewhere.read_text()
    # Its name is the bake's: nothing here carries it.
    report = reap(aws.cloud, project.state_dir, target="local", dry_run=False)
    assert report.removed == []
    reap(aws.cloud, project.state_dir, target="local", dry_run=False, kept=True)
    assert elsewhere.read_text() == text
    again = reap(aws.cloud, project.state_dir, target="local", dry_run=True, kept=True)
    assert {one.bake_id for one in again.elsewhere} == {"elsewhere"}


def test_a_flipped_bit_hides_one_thing_at_most_and_is_no_traceback(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers(exit_codes={"os": 3}))
    path = left_by_a_bake(aws, project)
    whole, there, luck = path.read_bytes(), made(path), random.Random(6)
    for _ in range(FLIPS):
        raw = bytearray(whole)
        raw[luck.randrange(len(raw))] ^= 1 << luck.randrange(8)
        path.write_bytes(raw)
        report = reap(aws.cloud, project.state_dir, target="local", dry_run=True, kept=True)
        told = {one.id for one in (*report.would_remove, *report.kept)}
        assert len(there - told) <= 1 or report.elsewhere
