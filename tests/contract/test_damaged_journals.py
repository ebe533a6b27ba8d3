"""`reap` over damaged journals: what their whole lines tell is found, and no more is touched."""

from __future__ import annotations

import json
import random
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from amibuild.errors import CommandFailed
from amibuild.journal import Journal, Shown
from amibuild.project import Project
from amibuild.reap import reap
from amibuild.reaped import UNKNOWN, Elsewhere
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


def test_such_a_journal_is_looked_into_in_the_region_that_its_lines_name(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers(exit_codes={"os": 3}))
    there = replace(aws, region="eu-west-1")
    there.__dict__.pop("cloud", None)
    before = account(there)
    path = left_by_a_bake(there, project)
    path.write_bytes(path.read_bytes().partition(b"\n")[2])
    here = reap(
        aws.cloud, project.state_dir, target="local", dry_run=False, kept=True, regions=[aws.region]
    )
    assert here.removed == []
    assert here.elsewhere == [Elsewhere(path.stem, UNKNOWN, there.region)], "told once"
    done = reap(aws.cloud, project.state_dir, target="local", dry_run=False, kept=True)
    assert {one.region for one in done.removed} == {there.region}
    assert done.elsewhere == []
    assert account(there) == before


def test_a_journal_that_another_reap_has_by_now_is_left_to_that(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers(exit_codes={"os": 3}))
    path = left_by_a_bake(aws, project)
    second = path.with_name("z" + path.name)
    second.write_bytes(path.read_bytes().partition(b"\n")[2])
    taken: list[Journal] = []
    with ExitStack() as until_the_end:

        def take_the_next(_: Shown) -> None:
            """Once the first journal is reaped, after all were looked at."""
            if not taken:
                taken.append(until_the_end.enter_context(Journal(second)))

        report = reap(
            aws.cloud,
            project.state_dir,
            target="local",
            dry_run=False,
            kept=True,
            subscribers=(take_the_next,),
        )
    assert (report.busy, report.live) == ([second.stem], [])


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
