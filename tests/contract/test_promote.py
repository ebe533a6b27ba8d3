"""Channels on the local endpoint's Parameter Store: moved once, by one, to what can be used."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import boto3
import pytest

from amibuild.aws.images import Image
from amibuild.aws.session import Cloud
from amibuild.channel_lines import Moved, Moving
from amibuild.channels import drift, survey
from amibuild.errors import ChannelBusy, PromotionRefused, ResourceFailed, UsageError, WaitTimeout
from amibuild.journal import Shown, read
from amibuild.local.faults import Fault
from amibuild.local.overlay.desk import Desk
from amibuild.local.service import Options, Service
from amibuild.lock import RELEASED
from amibuild.promote import Allowed, MoveResult, carry_out, plan_promotion
from amibuild.reap import reap
from amibuild.steps.lock import utc_now
from tests.contract.conftest import KEY, Aws
from tests.contract.imaged import in_region, snapshot_of
from tests.contract.promoted import Stage, killed_at
from tests.contract.swift import swift

OLD, NEW = "2026.11.21.1", "2026.11.22.1"


NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, session: boto3.Session) -> Iterator[Aws]:
    """One endpoint for all: each test has a recipe, and so images and channels, of its own."""
    options = Options(tmp_path_factory.mktemp("shared") / "data", machine="none", key=KEY)
    with closing(Service(options)) as service:
        yield Aws(service, session)


@pytest.fixture(scope="module")
def snapshot(shared: Aws) -> str:
    return snapshot_of(shared, shared.image())


@pytest.fixture
def stage(shared: Aws, snapshot: str, tmp_path: Path) -> Stage:
    return Stage(shared, tmp_path / f"recipe-{next(NUMBERS)}", snapshot=snapshot)


def tag_revoked(stage: Stage, image: str) -> None:
    tag = [{"Key": "amibuild:revoked", "Value": "slow"}]
    stage.aws.ec2.create_tags(Resources=[image], Tags=tag)  # type: ignore[arg-type]


def test_an_image_goes_from_channel_to_channel_and_each_says_who_and_why(stage: Stage) -> None:
    old, new = stage.image(OLD), stage.image(NEW)
    assert stage.promote(OLD).version == 1
    stage.promote(f"{stage.name}-{NEW}", reason="openssl")
    stage.promote("@nightly", "staging")
    assert stage.promote(new, "production").id is not None
    assert [stage.points_at(c) for c in ("nightly", "staging", "production")] == [new] * 3
    first, second = stage.history()
    assert (first.image_id, second.image_id, second.version) == (old, new, 2)
    assert first.note is not None and second.note is not None
    assert (first.note.previous, second.note.previous) == (None, old)
    assert (second.note.reason, second.note.name) == ("openssl", f"{stage.name}-{NEW}")
    assert "@" in second.by
    ssm, name = stage.aws.ssm, stage.parameter()
    tags = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=name)["TagList"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {
        "amibuild:image": stage.name,
        "amibuild:channel": "nightly",
    }
    assert ssm.get_parameter(Name=name)["Parameter"]["DataType"] == "aws:ec2:image"


def test_its_journal_tells_the_move_before_and_after(stage: Stage) -> None:
    old, new = stage.image(OLD), stage.image(NEW)
    stage.promote(old)
    moved = stage.promote(new, reason="openssl")
    events = list(read(stage.path.parent / ".amibuild" / "journals" / f"{moved.id}.jsonl"))
    (moving,) = [e for e in events if isinstance(e, Moving)]
    (done,) = [e for e in events if isinstance(e, Moved)]
    assert (moving.image, moving.previous, moving.reason) == (new, old, "openssl")
    assert (done.parameter, done.version) == (stage.parameter(), 2)
    assert events.index(moving) < events.index(done)


def test_reap_has_nothing_to_do_after_a_promotion(stage: Stage) -> None:
    stage.promote(stage.image(OLD))
    report = reap(stage.aws.cloud, stage.path.parent / ".amibuild", target="local", dry_run=False)
    assert (report.removed, report.left, report.elsewhere, report.live) == ([], [], [], [])


def test_again_changes_nothing(stage: Stage) -> None:
    image = stage.image(OLD)
    stage.promote(image)
    journals = len(list((stage.path.parent / ".amibuild" / "journals").iterdir()))
    again = stage.promote(image)
    assert (again.id, again.version) == (None, 1)
    assert len(stage.history()) == 1
    assert len(list((stage.path.parent / ".amibuild" / "journals").iterdir())) == journals


@pytest.mark.parametrize(
    ("tags", "allowed", "reason"),
    [
        ({"amibuild:verified": ""}, Allowed(unverified=True), "not verified"),
        ({"amibuild:verified": "failed"}, Allowed(unverified=True), "not verified"),
        # What `reap` removes one night is in no channel.
        ({"amibuild:expires": "2026-11-22T16:15:00Z"}, None, "amibuild reap"),
        (
            {"amibuild:expires": "2026-11-22T16:15:00Z", "amibuild:verified": "failed"},
            None,
            "amibuild reap",
        ),
        ({"amibuild:revoked": "it is slow"}, None, "revoked: it is slow"),
    ],
)
def test_what_its_tags_speak_against_is_refused_unless_a_flag_says_so(
    stage: Stage, tags: dict[str, str], allowed: Allowed | None, reason: str
) -> None:
    image = stage.image(OLD, **tags)
    every = Allowed(unverified=True, deprecated=True, skip=True, rolled_back=True)
    with pytest.raises(PromotionRefused, match=reason) as refused:
        stage.promote(image, allowed=every if allowed is None else Allowed())
    assert refused.value.exit_code == 2
    assert refused.value.flags == ("--allow-unverified" if allowed else "",)
    assert stage.points_at() is None
    if allowed is not None:
        stage.promote(image, allowed=allowed)
        assert stage.points_at() == image


def test_a_deprecated_image_is_refused_unless_a_flag_says_so(stage: Stage) -> None:
    image = stage.image(OLD)
    stage.deprecate(image)
    with pytest.raises(PromotionRefused, match="--allow-deprecated"):
        stage.promote(image)
    stage.promote(image, allowed=Allowed(deprecated=True))
    assert stage.points_at() == image


def test_a_disabled_image_is_refused_whatever_is_said(stage: Stage) -> None:
    image = stage.image(OLD)
    stage.aws.ec2.disable_image(ImageId=image)
    with pytest.raises(PromotionRefused, match="it is disabled"):
        stage.promote(image, allowed=Allowed(unverified=True, deprecated=True, skip=True))


def test_a_channel_that_has_a_revoked_image_is_not_told_that_all_is_well(stage: Stage) -> None:
    old, new = stage.image(OLD), stage.image(NEW)
    stage.promote(old)
    stage.promote(new)
    tag_revoked(stage, new)
    every = Allowed(unverified=True, deprecated=True, skip=True, rolled_back=True)
    with pytest.raises(PromotionRefused, match="it is revoked: slow") as refused:
        stage.promote(new, allowed=every)
    assert refused.value.hint is not None and "promote another" in refused.value.hint
    with pytest.raises(PromotionRefused, match="it is revoked: slow"):
        stage.roll_back(to=new)
    assert len(stage.history()) == 2


def test_an_old_mark_of_what_the_channel_has_already_needs_no_flag(stage: Stage) -> None:
    image = stage.image(OLD, **{"amibuild:verified": ""})
    stage.promote(image, allowed=Allowed(unverified=True))
    assert stage.promote(image).id is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("revoke", "by now it is revoked: slow"),
        ("disable", "by now it is disabled"),
        ("deprecate", "by now it is deprecated"),
        ("unprove", "by now it is not verified"),
        ("remove", "it is gone"),
    ],
)
def test_the_image_is_looked_at_again_after_the_yes(stage: Stage, change: str, said: str) -> None:
    old, new = stage.image(OLD), stage.image(NEW)
    stage.put(old)
    cloud, ec2 = stage.aws.cloud, stage.aws.ec2
    move = plan_promotion(cloud, stage.recipe, new, "nightly", Allowed())
    match change:
        case "revoke":
            tag_revoked(stage, new)
        case "disable":
            ec2.disable_image(ImageId=new)
        case "deprecate":
            stage.deprecate(new)
        case "unprove":
            ec2.delete_tags(Resources=[new], Tags=[{"Key": "amibuild:verified"}])
        case _:
            ec2.deregister_image(ImageId=new)
    with pytest.raises(PromotionRefused, match=said):
        carry_out(cloud, stage.path, move, target="local", reason="", subscribers=())
    assert (stage.points_at(), len(stage.history())) == (old, 1)
    report = reap(cloud, stage.path.parent / ".amibuild", target="local", dry_run=False)
    assert report.removed == [], "its lock was released"


def test_a_rollback_of_the_channel_before_counts_after_the_yes(stage: Stage) -> None:
    old, new = stage.image(OLD), stage.image(NEW)
    for image in (old, new):
        stage.promote(image)
        stage.promote(image, "staging")
    cloud = stage.aws.cloud
    move = plan_promotion(cloud, stage.recipe, "@staging", "production", Allowed())
    stage.roll_back("staging")
    with pytest.raises(PromotionRefused, match="by now staging was rolled back from it"):
        carry_out(cloud, stage.path, move, target="local", reason="", subscribers=())
    assert stage.points_at("production") is None


def test_what_a_flag_allows_it_allows_at_the_second_look_too(stage: Stage) -> None:
    image = stage.image(NEW)
    move = plan_promotion(stage.aws.cloud, stage.recipe, image, "nightly", Allowed(deprecated=True))
    stage.deprecate(image)
    carry_out(stage.aws.cloud, stage.path, move, target="local", reason="", subscribers=())
    assert stage.points_at() == image


def test_no_rank_is_skipped_unless_a_flag_says_so(stage: Stage) -> None:
    old, new = stage.image(OLD), stage.image(NEW)
    stage.promote(old)
    with pytest.raises(PromotionRefused, match="it has not been in staging"):
        stage.promote(old, "production")
    stage.promote(new)
    stage.promote(old, "staging")  # it was in nightly, which has gone on since
    with pytest.raises(PromotionRefused, match="it has not been in staging"):
        stage.promote(new, "production")
    stage.promote(new, "production", Allowed(skip=True))
    assert stage.points_at("production") == new


def test_what_the_channel_was_rolled_back_from_needs_a_flag(stage: Stage) -> None:
    """Or the next nightly run, which has nothing new to bake, would undo the rollback."""
    good, bad = stage.image(OLD), stage.image(NEW)
    stage.promote(good)
    stage.promote(bad)
    stage.roll_back()
    with pytest.raises(PromotionRefused, match="nightly was rolled back from it on 20") as refused:
        stage.promote(bad)
    assert refused.value.flags == ("--allow-rolled-back",)
    assert stage.points_at() == good
    stage.promote(good)  # it has that one: nothing to object to
    stage.promote(stage.image("2026.11.23.1"))
    with pytest.raises(PromotionRefused, match="nightly was rolled back from it"):
        stage.promote(bad)
    stage.promote(bad, allowed=Allowed(rolled_back=True))
    stage.promote(good)
    stage.promote(bad)  # what it was given again in spite of that is as any other


def test_what_the_channel_before_was_rolled_back_from_needs_a_flag(stage: Stage) -> None:
    first, second, bad = (stage.image(f"2026.11.2{n}.1") for n in (1, 2, 3))
    for image in (first, second, bad):
        stage.promote(image)
        stage.promote(image, "staging")
    stage.roll_back("staging", to=first)
    with pytest.raises(PromotionRefused, match="staging was rolled back from it on") as refused:
        stage.promote(bad, "production")
    assert refused.value.flags == ("--allow-rolled-back",)
    with pytest.raises(PromotionRefused, match="staging was rolled back past it on"):
        stage.promote(second, "production")
    with pytest.raises(PromotionRefused):
        stage.promote(bad, "production", Allowed(skip=True))
    stage.promote(first, "production")
    stage.promote(bad, "production", Allowed(rolled_back=True))
    assert stage.points_at("production") == bad
    stage.roll_back("staging", to=bad)  # it was good after all
    stage.promote(first, "staging")
    stage.promote(first, "production")
    stage.promote(bad, "production")


def test_every_reason_is_told_at_once(stage: Stage) -> None:
    image = stage.image(OLD, **{"amibuild:verified": ""})
    stage.deprecate(image)
    with pytest.raises(PromotionRefused) as refused:
        stage.promote(image, "staging")
    assert len(refused.value.reasons) == 3


@pytest.mark.parametrize(
    ("reference", "to", "said"),
    [
        (OLD, "prod", "no channel prod"),
        ("@prod", "nightly", "no channel prod"),
        ("@staging", "nightly", "nothing was promoted to staging yet"),
        ("2026.1.1.1", "nightly", "there is no image 2026.1.1.1 of recipe-"),
    ],
)
def test_what_there_is_not_is_told(stage: Stage, reference: str, to: str, said: str) -> None:
    stage.image(OLD)
    with pytest.raises(UsageError, match=said):
        stage.promote(reference, to)


def test_an_image_of_another_recipe_is_none_of_ours(stage: Stage) -> None:
    other = stage.image(OLD, **{"amibuild:image": "other-host"})
    with pytest.raises(UsageError, match="there is no image"):
        stage.promote(other)


def test_it_is_not_done_before_the_new_version_is_there(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Desk.current, "validation_s", 0.3)
    image = stage.image(OLD)
    stage.promote(image)
    assert stage.points_at() == image


def test_an_image_that_went_meanwhile_leaves_the_old_value(stage: Stage) -> None:
    """PutParameter says yes to it, and nothing is saved."""
    old, new = stage.image(OLD), stage.image(NEW)
    stage.promote(old)

    def remove(shown: Shown) -> None:
        if isinstance(shown, Moving):
            stage.aws.ec2.deregister_image(ImageId=new)

    with swift() as clock, pytest.raises(WaitTimeout) as late:
        stage.promote(new, clock=clock, subscribers=(remove,))
    assert late.value.hint is not None and new in late.value.hint
    assert stage.points_at() == old


@pytest.mark.parametrize(
    ("first", "fault"),
    [
        # What botocore is told when it asks again.
        (True, "PutParameter:2=ParameterAlreadyExists:after"),
        # The lock's is the first, the release of it the last.
        (False, "PutParameter:2-11=ConnectionLost:after"),
    ],
)
def test_a_move_whose_answer_got_lost_is_a_move(stage: Stage, first: bool, fault: str) -> None:
    image = stage.image(NEW)
    if not first:
        stage.put(stage.image(OLD))
    faults = stage.aws.service.scripted.faults
    faults.order([Fault.parse(fault)])
    try:
        with swift() as clock:
            assert stage.promote(image, clock=clock).id is not None
    finally:
        faults.order(())
    assert stage.points_at() == image


def test_a_channel_that_moved_since_the_look_is_left_alone(stage: Stage) -> None:
    old, new = stage.image(OLD), stage.image(NEW)
    cloud = stage.aws.cloud
    move = plan_promotion(cloud, stage.recipe, old, "nightly", Allowed())
    stage.promote(new)
    with pytest.raises(ChannelBusy, match=f"was moved to {new} meanwhile"):
        carry_out(cloud, stage.path, move, target="local", reason="", subscribers=())
    assert stage.points_at() == new


def test_who_has_lost_the_lock_meanwhile_writes_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look at the image was held up, as by a network that is away."""
    old, new = stage.image(OLD), stage.image(NEW)
    stage.put(old)
    cloud = stage.cloud()
    move = plan_promotion(cloud, stage.recipe, new, "nightly", Allowed())
    monkeypatch.setattr("amibuild.steps.channel.LEASE", timedelta(seconds=2))
    look = cloud.images.image

    def held_up(image_id: str) -> Image:
        over = utc_now() + timedelta(seconds=2)
        stage.aws.until(lambda: "over" if utc_now() >= over else "not yet", "over")
        return look(image_id)

    monkeypatch.setattr(cloud.images, "image", held_up)
    with pytest.raises(ResourceFailed, match="is lost"):
        carry_out(cloud, stage.path, move, target="local", reason="", subscribers=())
    assert stage.points_at() == old


def test_who_wrote_without_the_lock_is_told_of(stage: Stage) -> None:
    """The console, Terraform: between our look and our write. Both are in the history."""
    old, new, third = stage.image(OLD), stage.image(NEW), stage.image("2026.11.23.1")
    stage.promote(old)

    def meddle(shown: Shown) -> None:
        if isinstance(shown, Moving):
            stage.put(third)

    with pytest.raises(ChannelBusy, match=f"was set to {third} by") as told:
        stage.promote(new, subscribers=(meddle,))
    assert f"it now has {new}" in told.value.message
    assert stage.points_at() == new


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(stage: Stage) -> None:
    """Again and again, each with clients of its own, let off together."""
    images = [stage.image(OLD), stage.image(NEW)]
    third = stage.image("2026.11.23.1")
    clouds = [stage.cloud(), stage.cloud()]
    together = threading.Barrier(2, timeout=60)
    for number in range(8):
        stage.put(third)
        began = len(stage.history())

        def compete(cloud: Cloud, image: str) -> MoveResult | ChannelBusy:
            move = plan_promotion(cloud, stage.recipe, image, "nightly", Allowed())
            together.wait()
            try:
                return carry_out(cloud, stage.path, move, target="local", reason="", subscribers=())
            except ChannelBusy as busy:
                return busy

        with ThreadPoolExecutor(2) as pool:
            ended = list(pool.map(compete, clouds, images))
        (won,) = [one for one in ended if isinstance(one, MoveResult)]
        (lost,) = [one for one in ended if isinstance(one, ChannelBusy)]
        assert lost.hint is not None and "amibuild channels" in lost.hint
        assert stage.points_at() == won.move.image.id
        assert len(stage.history()) == began + 1, number


@pytest.mark.parametrize("moment", ["intended:1", "created:1", "moving:1", "moved:1"])
def test_a_killed_promotion_is_in_nobodys_way(stage: Stage, moment: str) -> None:
    """Its lock is known to be a dead one's on this machine, and `reap` has it everywhere else."""
    old, new = stage.image(OLD), stage.image(NEW)
    stage.put(old)
    url = stage.aws.service.url
    assert killed_at(moment, url, stage.path, new, "nightly") == -signal.SIGKILL
    assert stage.points_at() == (new if moment == "moved:1" else old)
    if moment == "moving:1":
        state_dir = stage.path.parent / ".amibuild"
        reap(stage.aws.cloud, state_dir, target="local", dry_run=False)
        lock = stage.aws.cloud.ssm.parameters_below(f"/amibuild/{stage.name}/nightly/lock")
        assert list(lock.values()) == [RELEASED]
    stage.promote(new)
    assert stage.points_at() == new


def test_rollback_goes_back_and_again_further(stage: Stage) -> None:
    first, second, third = (stage.image(f"2026.11.2{n}.1") for n in (1, 2, 3))
    for image in (first, second, third):
        stage.promote(image)
    assert stage.roll_back().move.image.id == second
    assert stage.roll_back().move.image.id == first
    with pytest.raises(PromotionRefused, match="no image that nightly could go back to"):
        stage.roll_back()
    stage.promote(third, allowed=Allowed(rolled_back=True))
    assert stage.roll_back().move.image.id == first
    notes = [entry.note for entry in stage.history()]
    assert [note.verb for note in notes if note][-3:] == ["rollback", "promote", "rollback"]


def test_rollback_passes_over_what_cannot_be_used_and_says_so(stage: Stage) -> None:
    good, gone, old, revoked, current = (stage.image(f"2026.11.2{n}.1") for n in range(1, 6))
    for image in (good, gone, old, revoked, current):
        stage.promote(image)
    stage.aws.ec2.deregister_image(ImageId=gone)
    stage.deprecate(old)
    tag_revoked(stage, revoked)
    moved = stage.roll_back()
    assert stage.points_at() == moved.move.image.id == good
    said = moved.move.passed_over
    assert [
        word in text for word, text in zip(("revoked", "deprecated", "gone"), said, strict=True)
    ] == [True] * 3


def test_rollback_to_a_version_that_the_channel_has_had(stage: Stage) -> None:
    first, second = stage.image(OLD), stage.image(NEW)
    never = stage.image("2026.11.23.1")
    stage.promote(first)
    stage.promote(second)
    with pytest.raises(UsageError, match="has not been in nightly"):
        stage.roll_back(to=never)
    assert stage.roll_back(to=OLD).move.image.id == first
    assert stage.roll_back(to=OLD).id is None  # it is there
    stage.deprecate(second)
    with pytest.raises(PromotionRefused, match="deprecated"):
        stage.roll_back(to=NEW)


def test_regions_that_differ_are_seen(shared: Aws, snapshot: str, tmp_path: Path) -> None:
    more = '[publish]\nregions = ["us-east-1", "eu-west-1"]\n'
    stage = Stage(shared, tmp_path / "here" / "wide", more, snapshot)
    other = Stage(in_region(shared, "eu-west-1"), tmp_path / "there" / "wide")
    stage.promote(stage.image(NEW))
    other.promote(other.image(NEW))
    assert drift(survey(stage.aws.cloud, stage.recipe), 0) == {}
    stage.promote("@nightly", "staging")
    found = survey(stage.aws.cloud, stage.recipe)
    assert list(found) == ["us-east-1", "eu-west-1"]
    assert drift(found, 1) == {"eu-west-1": "nothing"}
    other.promote(other.image(OLD))
    assert drift(survey(stage.aws.cloud, stage.recipe), 0) == {"eu-west-1": OLD}
