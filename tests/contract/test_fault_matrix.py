"""The fault matrix: no call and no kind of fault stays out, and no cell is wrong.

`make test` runs each call's first occurrence with the kinds of QUICK, `make soak` all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

import boto3
import pytest

from amibuild.policy import Flow
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
    both,
    cells,
    sort_of,
)
from tests.contract.fault_matrix import Lab, Outcome, Tally, all_cells
from tests.unit.test_policy import ACTIONS, FULL, actions

Recorded = Mapping[Run, Outcome]
# What the policies of bake and reap allow, and no run calls.
LEFT_OUT = {
    "ec2:DescribeRegions": "of `reap --all-regions`, before it looks for anything",
    "ec2:RevokeSecurityGroupIngress": "of a bake that is resumed over SSH from another address: "
    "test_resume_over_ssh.py",
    "iam:CreateServiceLinkedRole": "EC2 makes the role for the first spot machine",
    "iam:PassRole": "asked of who calls RunInstances",
    "kms:CreateGrant": "EC2's, as all with the key of a disk",
    "kms:Decrypt": "the same",
    "kms:DescribeKey": "the same",
    "kms:GenerateDataKeyWithoutPlaintext": "the same",
    "kms:ReEncrypt*": "the same",
    "s3:GetObject": "an address is signed for it, and the machine fetches; a promotion reads a "
    "manifest: test_promote.py",
    "ssm:DeleteParameters": "of the tenth lock of an image, and a failure is a warning: "
    "test_lock.py",
    "ssm:GetParameters": "of `verify @CHANNEL`, before it makes anything; fault_channels.py has it",
}
# What a small bake is known to call, of every sort: a recording of nothing must not pass.
KNOWN = {
    *("RunInstances", "CreateImage", "SendCommand", "PutObject", "CreateTags", "HeadBucket"),
    *("GetServiceSetting", "GetInstanceProfile", "ModifyImageAttribute", "GetConsoleOutput"),
    *("CancelCommand", "DeregisterImage", "DeleteSnapshot", "DeleteObject", "ListObjectsV2"),
    *("AuthorizeSecurityGroupIngress", "GetSecretValue", "UploadPart", "AbortMultipartUpload"),
}
# S3 has s3:PutObject for the parts of a file, and whose key it is anybody may ask.
NOT_NAMED = {
    *("s3:CreateMultipartUpload", "s3:UploadPart", "s3:CompleteMultipartUpload"),
    "sts:GetCallerIdentity",
}
CREATES = {*NEW, *SHORTAGES, "PutObject", "CreateMultipartUpload"}
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
    return all_cells(recorded)


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
        *((name, Kind.UNSEEN) for name in SEEN),
        *((name, Kind.LOST_UNSEEN) for name in SEEN.intersection(CREATES)),
        *((name, kind) for name in set(CREATES) - set(SHORTAGES) for kind in shortages),
        *((name, Kind.DEAD) for name in set(CREATES) - set(DEATHS)),
    }


def test_every_action_of_the_printed_policies_is_recorded_or_left_out_for_a_reason(
    recorded: Recorded,
) -> None:
    calls = {call for seen in recorded.values() for call in seen.calls}
    made = {ACTIONS.get(call.name, f"{call.service}:{call.name}") for call in calls}
    allowed = actions(FULL, Flow.BAKE) | actions(FULL, Flow.REAP)
    assert allowed - made == LEFT_OUT.keys()
    assert made - allowed == NOT_NAMED, "which a policy does not name"


def test_what_a_run_is_said_to_ask_for_otherwise_it_asks_for(recorded: Recorded) -> None:
    for run, seen in recorded.items():
        assert run.otherwise <= {call.name for call in seen.calls}, run.name


def test_a_call_that_only_one_recording_has_is_a_call_and_need_not_come() -> None:
    sometimes, always = Call("ec2", "DescribeImages"), Call("ec2", "DescribeVolumes")
    calls, unsure = both(Counter({sometimes: 1, always: 3}), Counter({always: 2}))
    assert (calls, unsure) == (Counter({sometimes: 1, always: 2}), frozenset({sometimes}))
    run = Run("a new bake")
    made = cells({run: calls}, {run: unsure})
    assert {cell.call for cell in made} == {sometimes, always}
    assert {cell.call for cell in made if cell.must_hit} == {always}


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


def quick(cell: Cell) -> bool:
    return cell.first and cell.kind in QUICK and not cell.run.rare


@pytest.mark.parametrize("kind", QUICK)
def test_a_fault_leaves_nothing_but_what_is_reported(
    lab: Lab, recorded: Recorded, matrix: list[Cell], kind: Kind
) -> None:
    assert wrong_of(lab, recorded, matrix, lambda c: quick(c) and c.kind is kind) == []


@pytest.mark.soak
@pytest.mark.parametrize("kind", Kind)
def test_so_does_every_other_one(
    lab: Lab, recorded: Recorded, matrix: list[Cell], kind: Kind
) -> None:
    def rest(cell: Cell) -> bool:
        return cell.kind is kind and not quick(cell)

    if any(map(rest, matrix)):
        assert wrong_of(lab, recorded, matrix, rest) == []
