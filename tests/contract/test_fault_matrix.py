"""The fault matrix: no call and no kind of fault stays out, and no cell is wrong.

`make test` runs each call's first occurrence with the kinds of QUICK, `make soak` all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

import boto3
import pytest

from tests.contract.fault_cells import (
    DEATHS,
    NEW,
    POSSIBLE,
    SEEN,
    SHORTAGES,
    Call,
    Cell,
    Kind,
    Run,
    Sort,
    cells,
    sort_of,
)
from tests.contract.fault_matrix import Lab, Outcome, Tally

Recorded = Mapping[Run, Outcome]
# What a small bake is known to call, of every sort: a recording of nothing must not pass.
KNOWN = {
    *("RunInstances", "CreateImage", "SendCommand", "PutObject", "CreateTags", "HeadBucket"),
    *("GetServiceSetting", "GetInstanceProfile", "ModifyImageAttribute", "GetConsoleOutput"),
    *("CancelCommand", "DeregisterImage", "DeleteSnapshot", "DeleteObject", "ListObjectsV2"),
    "AuthorizeSecurityGroupIngress",
}
CREATES = {*NEW, *SHORTAGES, "PutObject"}
# In `make test`: every call has one of them at least. The others take the same ways through
# botocore's retries, or are in test_bake.py for what is created: their turn is in `make soak`.
QUICK = (Kind.DENIED, Kind.LOST, Kind.SHORT, Kind.SHORT_ON)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, session: boto3.Session) -> Iterator[Lab]:
    with closing(Lab(tmp_path_factory.mktemp("matrix"), session)) as lab:
        yield lab


@pytest.fixture(scope="module")
def recorded(lab: Lab) -> Recorded:
    return lab.record()


@pytest.fixture(scope="module")
def matrix(recorded: Recorded) -> list[Cell]:
    return cells({run: seen.calls for run, seen in recorded.items()})


def test_every_recorded_call_has_every_kind_of_fault_that_its_sort_can_have(
    recorded: Recorded, matrix: list[Cell]
) -> None:
    calls = {call for seen in recorded.values() for call in seen.calls}
    assert {call.name for call in calls} >= KNOWN
    there = {(cell.call, cell.kind) for cell in matrix}
    missing = {
        (call.name, kind)
        for call in calls
        for kind in POSSIBLE[sort_of(call.name)]
        if (call, kind) not in there
    }
    # The exceptions, each with its reason beside the tables that they come from.
    shortages = (Kind.SHORT, Kind.SHORT_ON)
    assert missing == {
        *((call, Kind.UNSEEN) for call in SEEN),
        *((name, kind) for name in ("PutObject", "SendCommand") for kind in shortages),
        *((name, Kind.DEAD) for name in set(CREATES) - set(DEATHS)),
    }


def test_no_kind_of_fault_is_without_a_cell(matrix: list[Cell]) -> None:
    assert {cell.kind for cell in matrix} == set(Kind)
    assert {sort_of(cell.call.name) for cell in matrix} == set(Sort)


def test_a_call_of_no_known_sort_cannot_stay_out() -> None:
    new = Counter([Call("ec2", "FrobnicateImage")])
    with pytest.raises(KeyError, match="FrobnicateImage"):
        cells({Run("a new bake"): new})


def test_a_change_that_nobody_said_how_it_is_not_found_cannot_stay_out() -> None:
    new = Counter([Call("ec2", "ModifyVolume")])
    with pytest.raises(KeyError, match="ModifyVolume"):
        cells({Run("a new bake"): new})


def wrong_of(
    lab: Lab, recorded: Recorded, matrix: list[Cell], picked: Callable[[Cell], bool]
) -> list[str]:
    tally = Tally()
    for cell in filter(picked, matrix):
        tally.add(cell, lab.perform(cell.run, cell.faults), recorded[cell.run])
    assert tally.cells > 0
    return tally.wrong


@pytest.mark.parametrize("kind", QUICK)
def test_a_fault_leaves_nothing_but_what_is_reported(
    lab: Lab, recorded: Recorded, matrix: list[Cell], kind: Kind
) -> None:
    assert wrong_of(lab, recorded, matrix, lambda c: c.first and c.kind is kind) == []


@pytest.mark.soak
@pytest.mark.parametrize("kind", Kind)
def test_so_does_every_other_one(
    lab: Lab, recorded: Recorded, matrix: list[Cell], kind: Kind
) -> None:
    def rest(cell: Cell) -> bool:
        return cell.kind is kind and not (cell.first and kind in QUICK)

    if any(map(rest, matrix)):
        assert wrong_of(lab, recorded, matrix, rest) == []
