"""A promotion with a fault at every call leaves the channel at its old or its new value; a prune
leaves what is used, and says what it did by half.

`make test` runs what changes something, and the first of each read, with the kinds of QUICK;
`make soak` all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing

import boto3
import pytest

from tests.contract.fault_cells import POSSIBLE, Call, Cell, Kind, Run, sort_of
from tests.contract.fault_channels import (
    NEXT,
    PRUNED,
    REVOKED,
    RUNS,
    Lab,
    Outcome,
    every_cell,
    problems,
)

Recorded = Mapping[Run, Outcome]
# Those that act although they seem not to, and those that end a move halfway.
QUICK = (Kind.DENIED, Kind.LOST, Kind.LOST_ON)
KNOWN = {
    "GetCallerIdentity",
    *("GetParameters", "GetParametersByPath", "PutParameter", "DescribeImages"),
    *("GetParameterHistory", "CreateTags", "DisableImage", "EnableImageDeprecation"),
    *("DescribeImageReferences", "DescribeSnapshots", "DeregisterImage", "DeleteSnapshot"),
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, session: boto3.Session) -> Iterator[Lab]:
    with closing(Lab(tmp_path_factory.mktemp("channels"), session)) as lab:
        yield lab


@pytest.fixture(scope="module")
def recorded(lab: Lab) -> Recorded:
    return lab.record()


@pytest.fixture(scope="module")
def matrix(recorded: Recorded) -> list[Cell]:
    return every_cell(recorded)


def quick(cell: Cell) -> bool:
    return cell.first and cell.kind in QUICK and cell.run in (NEXT, REVOKED, PRUNED)


def wrong_of(lab: Lab, recorded: Recorded, picked: list[Cell]) -> list[str]:
    assert picked
    found = {
        cell: problems(cell, lab.perform(cell.run, cell.faults), recorded[cell.run])
        for cell in picked
    }
    return [f"{cell}: {'; '.join(wrong)}" for cell, wrong in found.items() if wrong]


def test_without_a_fault_every_move_comes_through(recorded: Recorded, matrix: list[Cell]) -> None:
    assert [(seen.error, seen.wrong) for seen in recorded.values()] == [(None, ())] * len(RUNS)
    calls = {call for seen in recorded.values() for call in seen.calls}
    assert {call.name for call in calls} == KNOWN
    there = {(cell.call, cell.kind) for cell in matrix}
    assert {(call, kind) for call in calls for kind in POSSIBLE[sort_of(call.name)]} - there == {
        # A parameter that names an image never dies: it is there or it is not.
        (Call("ssm", "PutParameter"), Kind.DEAD)
    }


def test_a_fault_leaves_the_old_value_or_the_new_one(
    lab: Lab, recorded: Recorded, matrix: list[Cell]
) -> None:
    assert wrong_of(lab, recorded, [cell for cell in matrix if quick(cell)]) == []


@pytest.mark.soak
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_so_does_every_other_one(
    lab: Lab, recorded: Recorded, matrix: list[Cell], run: Run
) -> None:
    rest = [cell for cell in matrix if cell.run == run and not quick(cell)]
    assert wrong_of(lab, recorded, rest) == []
