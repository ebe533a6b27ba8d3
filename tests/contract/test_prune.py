"""Old images go with their snapshots; of 60 that are used in every way none that is used does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest

from amibuild.aws.partition import partition_of
from amibuild.channel_lines import Pruning
from amibuild.errors import AwsError, ChannelBusy
from amibuild.journal import Shown, read
from amibuild.local.faults import Fault
from amibuild.local.service import Options, Service
from amibuild.lock import RELEASED, Holder
from amibuild.permission import Wanted
from amibuild.policy import Flow, statements
from amibuild.retention import Rule
from amibuild.wait import Waiting
from tests.contract.conftest import KEY, Aws
from tests.contract.fault_matrix import calls_in
from tests.contract.imaged import image, snapshot_of, tags_of
from tests.contract.shelf import Shelf

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, session: boto3.Session) -> Iterator[Aws]:
    """One endpoint for all: each test has a recipe, and so images and channels, of its own."""
    folder = tmp_path_factory.mktemp("shared")
    options = Options(folder / "data", machine="none", key=KEY, call_log=folder / "calls")
    with closing(Service(options)) as service:
        yield Aws(service, session)


@pytest.fixture(scope="module")
def snapshot(shared: Aws) -> str:
    return snapshot_of(shared, shared.image())


@pytest.fixture
def shelf(shared: Aws, snapshot: str, tmp_path: Path) -> Shelf:
    return Shelf(shared, tmp_path / f"recipe-{next(NUMBERS)}", snapshot)


def revoke_by_tag(shelf: Shelf, image: str) -> None:
    tags = [{"Key": "amibuild:revoked", "Value": "slow"}]
    shelf.aws.ec2.create_tags(Resources=[image], Tags=tags)  # type: ignore[arg-type]


def test_of_sixty_images_none_that_is_used_goes(shelf: Shelf) -> None:
    aws, ec2 = shelf.aws, shelf.aws.ec2
    images = shelf.images(57)
    used: dict[str, str] = {}
    begun = len(calls_in(aws.service.options.call_log or Path()))

    for state in ("running", "stopped"):
        machine = aws.running(ImageId=images[len(used)])
        if state == "stopped":
            ec2.stop_instances(InstanceIds=[machine])
            aws.until_state(machine, "stopped")
        used[images[len(used)]] = f"instance {machine} uses it"
    gone = aws.running(ImageId=images[50])
    ec2.terminate_instances(InstanceIds=[gone])
    aws.until_state(gone, "terminated")

    for depth in (0, 12):  # more versions ago than EC2 looks by itself
        made = images[len(used)]
        template = ec2.create_launch_template(
            LaunchTemplateName=f"{shelf.name}-{depth}", LaunchTemplateData={"ImageId": made}
        )["LaunchTemplate"]["LaunchTemplateId"]
        for _ in range(depth):
            ec2.create_launch_template_version(
                LaunchTemplateId=template, LaunchTemplateData={"ImageId": images[-1]}
            )
        used[made] = f"launch template {template} uses it"

    shelf.promote(images[10])
    shelf.promote(images[11])
    used[images[10]] = "the channel nightly would go back to it"
    used[images[11]] = "the channel nightly has it"
    shelf.put(images[12], "production")
    used[images[12]] = "the channel production has it"
    aws.ssm.put_parameter(
        Name=f"/{shelf.name}/mine", Value=images[13], Type="String", DataType="aws:ec2:image"
    )
    used[images[13]] = f"parameter /{shelf.name}/mine uses it"
    aws.until(lambda: str(aws.cloud.images.references([images[13]]) != []), "True")

    revoked_used, revoked = images[14], images[15]
    shelf.put(revoked_used, "staging")
    used[revoked_used] = "the channel staging has it"
    for one in (revoked_used, revoked):
        revoke_by_tag(shelf, one)
        ec2.disable_image(ImageId=one)
    # Newer than all, and none of them a version to keep.
    failed = shelf.image("2026.11.01.1", **{"amibuild:verified": "failed"})
    unproven = shelf.image("2026.11.02.1", **{"amibuild:verified": ""})
    baking = shelf.image("2026.11.03.1", **{"amibuild:expires": "2026-11-03T00:00:00Z"})

    plan = shelf.plan()
    assert len(plan.verdicts) == 60
    stays = {one.image.id: one.stays for one in plan.verdicts if one.stays}
    assert {id_: stays.get(id_) for id_ in used} == {id_: (why,) for id_, why in used.items()}
    assert set(stays) == {*used, baking, *images[-5:]}
    assert {revoked, failed, unproven, images[50]} <= {one.image.id for one in plan.going}
    assert plan.orphans == ()

    report = shelf.carry_out(plan)
    assert (report.left, report.spared, len(report.removed)) == ([], [], 60 - len(stays))
    assert shelf.there() == set(stays)
    assert shelf.snapshots() == {snapshot_of(aws, one) for one in stays}
    assert tags_of(image(aws, images[0]))["amibuild:verified"] == "passed"

    again = shelf.plan()
    calls = calls_in(aws.service.options.call_log or Path())
    assert not again.needed
    assert shelf.carry_out(again).id is None
    assert calls_in(aws.service.options.call_log or Path()) == calls
    assert begun < len(calls)


def test_it_asks_for_nothing_that_its_policy_lacks(shelf: Shelf) -> None:
    shelf.images(7)
    shelf.promote("2026.09.02.1")
    log = shelf.aws.service.options.call_log or Path()
    begun = len(calls_in(log))
    plan = shelf.plan()
    shelf.carry_out(plan)
    asked = {f"{call['service']}:{call['operation']}" for call in calls_in(log)[begun:]}
    wanted = Wanted(shelf.recipe, (), partition_of(shelf.recipe.aws.region))
    made = statements(wanted, Flow.PRUNE)
    may = {a for one in made if one.sid != "LookForUses" for a in one.actions}
    assert asked - may == set()
    assert may - asked == {"ssm:DeleteParameters"}, "a lock is tidied up after its tenth"


def test_its_journal_tells_what_is_about_to_go_and_why(shelf: Shelf) -> None:
    images = shelf.images(2)
    gone = snapshot_of(shelf.aws, images[0])
    report = shelf.carry_out(shelf.plan(Rule(1, 30)))
    events = read(shelf.path.parent / ".amibuild" / "journals" / f"{report.id}.jsonl")
    (told,) = [event for event in events if isinstance(event, Pruning)]
    assert (told.image, told.snapshots) == (images[0], (gone,))
    assert told.why == "40 days old, and there are 1 newer"


def test_one_that_is_used_since_the_look_is_spared(shelf: Shelf) -> None:
    images = shelf.images(4)
    plan = shelf.plan(Rule(1, 30))

    def promote(shown: Shown) -> None:
        if isinstance(shown, Pruning) and shown.image == images[2]:
            shelf.put(images[0])

    report = shelf.carry_out(plan, promote)
    assert [one.image.id for one in report.spared] == [images[0]]
    assert report.spared[0].stays == ("the channel nightly has it",)
    assert shelf.there() == {images[0], images[3]}


def test_what_was_promoted_since_the_look_is_spared(shelf: Shelf) -> None:
    images = shelf.images(3)
    plan = shelf.plan(Rule(1, 30))
    shelf.promote(images[0])
    report = shelf.carry_out(plan)
    assert report.spared[0].stays == ("the channel nightly has it",)
    assert shelf.there() == {images[0], images[2]}


def test_the_channels_are_looked_at_last_of_all(shelf: Shelf) -> None:
    """What others write without a lock must not be missed for long."""
    shelf.images(4)
    shelf.promote("2026.09.04.1")
    log = shelf.aws.service.options.call_log or Path()
    plan = shelf.plan(Rule(1, 30))
    begun = len(calls_in(log))
    shelf.carry_out(plan)
    made = [call["operation"] for call in calls_in(log)[begun:]]
    at = [number for number, name in enumerate(made) if name == "DeregisterImage"]
    assert len(at) == 3
    # The image's own snapshots are asked for in between.
    assert {tuple(made[number - 2 : number]) for number in at} == {
        ("GetParameters", "DescribeImages")
    }


def test_no_channel_is_moved_while_images_go(shelf: Shelf) -> None:
    images = shelf.images(3)
    shelf.promote(images[2])
    plan = shelf.plan(Rule(1, 30))
    told: list[ChannelBusy] = []

    def promote(shown: Shown) -> None:
        if isinstance(shown, Pruning):
            with pytest.raises(ChannelBusy, match="to move it or to prune") as busy:
                shelf.promote(shown.image)
            told.append(busy.value)

    report = shelf.carry_out(plan, promote)
    assert [one.image.id for one in report.removed] == [images[1], images[0]]
    assert len(told) == 2
    assert report.id is not None and report.id in told[0].message
    shelf.promote(shelf.image("2026.09.10.1"))  # nothing of the locks is left


def test_it_waits_for_a_move_to_end(shelf: Shelf) -> None:
    images = shelf.images(3)
    plan = shelf.plan(Rule(1, 30))
    lock = f"/amibuild/{shelf.name}/staging/lock/0000000001"
    now = datetime.now(UTC)
    theirs = Holder(
        bake_id="20261122-101500-a1b2c3",
        host="elsewhere",
        user="them",
        since=now,
        expires=now + timedelta(hours=1),
    )
    shelf.aws.cloud.ssm.overwrite_parameter(lock, theirs.model_dump_json())
    with pytest.raises(ChannelBusy, match=r"them@elsewhere .* has staging of"):
        shelf.carry_out(plan)
    assert shelf.there() == set(images)

    def end(shown: Shown) -> None:
        if isinstance(shown, Waiting) and "lock" in shown.what:
            shelf.put(images[0], "staging")
            shelf.aws.cloud.ssm.overwrite_parameter(lock, RELEASED)

    report = shelf.carry_out(plan, end)
    assert [one.image.id for one in report.spared] == [images[0]]
    assert [one.image.id for one in report.removed] == [images[1]]


def test_what_rollback_would_go_to_stays_though_a_deprecated_one_is_nearer(shelf: Shelf) -> None:
    oldest, back, deprecated, current = shelf.images(4)
    for one in (oldest, back, deprecated, current):
        shelf.promote(one)
    shelf.deprecate(deprecated)
    plan = shelf.plan(Rule(1, 30))
    assert [one.image.id for one in plan.going] == [deprecated, oldest]
    shelf.carry_out(plan)
    assert shelf.roll_back().move.image.id == back


def test_a_way_back_that_was_taken_back_since_the_look_is_none(shelf: Shelf) -> None:
    back, nearer, current = shelf.images(3)
    for one in (back, nearer, current):
        shelf.promote(one)
    plan = shelf.plan(Rule(1, 30))
    assert [one.image.id for one in plan.going] == [back]
    revoke_by_tag(shelf, nearer)
    report = shelf.carry_out(plan)
    assert report.spared[0].stays == ("the channel nightly would go back to it",)
    assert shelf.there() == {back, nearer, current}


def test_an_error_in_the_middle_takes_along_what_was_left_before_it(shelf: Shelf) -> None:
    images = shelf.images(3)
    plan = shelf.plan(Rule(1, 30))
    stays = snapshot_of(shelf.aws, images[1])
    denied = "UnauthorizedOperation"
    orders = (f"DeleteSnapshot:1={denied}", f"DescribeImageReferences:2={denied}")
    faults = shelf.aws.service.scripted.faults
    faults.order(list(map(Fault.parse, orders)))
    with pytest.raises(AwsError) as caught:
        shelf.carry_out(plan)
    faults.order(())
    assert [one.id for one in caught.value.leftovers] == [stays]
    assert shelf.there() == {images[0], images[2]}
    shelf.aws.__dict__.pop("cloud", None)  # its clients have learnt of the fault
    shelf.carry_out(shelf.plan(Rule(1, 30)))
    assert shelf.snapshots() == {snapshot_of(shelf.aws, images[2])}


@pytest.mark.parametrize("operation", ["DeregisterImage", "DeleteSnapshot"])
@pytest.mark.parametrize("fault", ["UnauthorizedOperation", "ConnectionLost", "InternalError"])
def test_a_removal_that_fails_is_told_and_done_by_the_next_call(
    shelf: Shelf, operation: str, fault: str
) -> None:
    images = shelf.images(3)
    plan = shelf.plan(Rule(1, 30))
    faults = shelf.aws.service.scripted.faults
    faults.order([Fault.parse(f"{operation}:1-60={fault}")])
    try:
        report = shelf.carry_out(plan)
    finally:
        faults.order(())
    assert report.removed == []
    kind = "image" if operation == "DeregisterImage" else "snapshot"
    assert [str(one.kind) for one in report.left] == [kind, kind]
    assert len(shelf.snapshots()) == 3
    shelf.aws.__dict__.pop("cloud", None)  # its clients have learnt of the fault
    second = shelf.carry_out(shelf.plan(Rule(1, 30)))
    assert second.left == []
    assert shelf.there() == {images[2]}
    assert shelf.snapshots() == {snapshot_of(shelf.aws, images[2])}


@pytest.mark.parametrize("fault", ["DescribeImageReferences", "GetParameters"])
def test_when_uses_cannot_be_seen_nothing_goes(shelf: Shelf, fault: str) -> None:
    shelf.images(3)
    plan = shelf.plan(Rule(1, 30))
    code = "UnauthorizedOperation" if fault[0] == "D" else "AccessDeniedException"
    faults = shelf.aws.service.scripted.faults
    for act in (lambda: shelf.carry_out(plan), lambda: shelf.plan(Rule(1, 30))):
        faults.order([Fault.parse(f"{fault}:1={code}")])
        with pytest.raises(AwsError) as denied:
            act()
        faults.order(())
        assert denied.value.hint is not None and "amibuild policy" in denied.value.hint
    assert len(shelf.there()) == 3
