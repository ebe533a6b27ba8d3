"""A revoked image: nobody starts it, no bake reuses it, no channel gets it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import boto3
import pytest

from amibuild import revoke
from amibuild.channel_lines import Revoking
from amibuild.channels import find
from amibuild.errors import PromotionRefused, UsageError
from amibuild.journal import read
from amibuild.local.service import Options, Service
from amibuild.promote import Allowed
from amibuild.registry import find_reusable
from amibuild.revoke import Mend, Revocation
from tests.contract.conftest import KEY, Aws, Refuses
from tests.contract.imaged import image as described
from tests.contract.imaged import snapshot_of, tags_of
from tests.contract.promoted import Stage

OLD, NEW = "2026.11.21.1", "2026.11.22.1"
DIGEST = "3f" * 32
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, session: boto3.Session) -> Iterator[Aws]:
    """One endpoint for all: each test has a recipe of its own."""
    options = Options(tmp_path_factory.mktemp("shared") / "data", machine="none", key=KEY)
    with closing(Service(options)) as service:
        yield Aws(service, session)


@pytest.fixture(scope="module")
def snapshot(shared: Aws) -> str:
    return snapshot_of(shared, shared.image())


@pytest.fixture
def stage(shared: Aws, snapshot: str, tmp_path: Path) -> Stage:
    return Stage(shared, tmp_path / f"recipe-{next(NUMBERS)}", snapshot=snapshot)


def revoked(
    stage: Stage, reference: str, reason: str = "it is slow"
) -> tuple[Revocation, str | None]:
    plan = revoke.plan_revocation(stage.aws.cloud, stage.recipe, reference)
    journal = revoke.carry_out(
        stage.aws.cloud, stage.path, plan, target="local", reason=reason, subscribers=()
    )
    return plan, journal


def test_nobody_can_start_it_and_it_says_why(stage: Stage, refuses: Refuses) -> None:
    image = stage.image(OLD)
    _, journal = revoked(stage, OLD)
    seen = described(stage.aws, image)
    assert seen["State"] == "disabled"
    assert "DeprecationTime" in seen
    assert tags_of(seen)["amibuild:revoked"] == "it is slow"
    refuses(
        "InvalidAMIID.Unavailable",
        stage.aws.ec2.run_instances,
        ImageId=image,
        MinCount=1,
        MaxCount=1,
    )
    events = read(stage.path.parent / ".amibuild" / "journals" / f"{journal}.jsonl")
    (told,) = [event for event in events if isinstance(event, Revoking)]
    assert (told.image, told.reason) == (image, "it is slow")


def test_it_is_still_listed_and_found_by_its_version(stage: Stage) -> None:
    image = stage.image(OLD)
    revoked(stage, OLD)
    found = find(stage.aws.cloud, stage.recipe, OLD)
    assert (found.id, found.revoked, found.state) == (image, "it is slow", "disabled")


def test_again_changes_nothing_and_keeps_the_first_reason(stage: Stage) -> None:
    image = stage.image(OLD)
    revoked(stage, OLD)
    before = described(stage.aws, image)
    _, journal = revoked(stage, OLD, "another word")
    assert journal is None
    assert described(stage.aws, image) == before


def test_what_is_missing_of_a_half_revoked_one_is_done(stage: Stage) -> None:
    image = stage.image(OLD, **{"amibuild:revoked": "it is slow"})
    _, journal = revoked(stage, OLD, "another word")
    assert journal is not None
    seen = described(stage.aws, image)
    assert (seen["State"], tags_of(seen)["amibuild:revoked"]) == ("disabled", "it is slow")
    assert "DeprecationTime" in seen


def test_channels_that_have_it_are_told_and_get_it_no_more(stage: Stage) -> None:
    stage.promote(stage.image(OLD))
    new = stage.image(NEW)
    stage.promote(new)
    stage.promote(new, "staging")
    plan, _ = revoked(stage, "@staging")
    assert [channel.name for channel in plan.channels] == ["nightly", "staging"]
    every = Allowed(unverified=True, deprecated=True, skip=True)
    with pytest.raises(PromotionRefused, match="it is revoked: it is slow"):
        stage.promote(new, "production", every)
    stage.roll_back("nightly")
    assert stage.points_at("nightly") != new
    with pytest.raises(PromotionRefused, match="it has had no other one"):
        stage.roll_back("staging")


def told(mend: Mend) -> tuple[str, str, str | None, str]:
    flags = " ".join(mend.flags)
    return mend.channel.name, mend.verb, mend.image.id if mend.image else None, flags


def test_what_mends_a_channel_is_what_would_come_through(stage: Stage) -> None:
    """A rollback where there is a way back; else the newest that may be promoted to it."""
    first, second, third = (stage.image(f"2026.11.2{n}.1") for n in (1, 2, 3))
    for image in (first, second):
        stage.promote(image)
    stage.promote(second, "staging")
    plan = revoke.plan_revocation(stage.aws.cloud, stage.recipe, second)
    # `third` is newer, and has not been in nightly.
    assert list(map(told, plan.mends)) == [
        ("nightly", "rollback", first, ""),
        ("staging", "promote", first, ""),
    ]
    revoked(stage, second)
    stage.roll_back("nightly")
    stage.promote(first, "staging")
    revoked(stage, first)
    for channel, flag in (("nightly", ""), ("staging", "--allow-skip")):
        plan = revoke.plan_revocation(stage.aws.cloud, stage.recipe, first)
        (mend,) = [one for one in plan.mends if one.channel.name == channel]
        assert told(mend) == (channel, "promote", third, flag)
    stage.promote(third, "staging", Allowed(skip=True))
    assert stage.points_at("staging") == third


def test_what_a_channel_was_rolled_back_from_is_the_last_choice(stage: Stage) -> None:
    good, bad = stage.image(OLD), stage.image(NEW)
    for image in (good, bad):
        stage.promote(image)
    stage.promote(good, "staging")
    stage.roll_back()
    plan = revoke.plan_revocation(stage.aws.cloud, stage.recipe, good)
    assert list(map(told, plan.mends)) == [
        ("nightly", "promote", bad, "--allow-rolled-back"),
        ("staging", "promote", bad, "--allow-rolled-back"),
    ]
    older = stage.image("2026.11.20.1")
    plan = revoke.plan_revocation(stage.aws.cloud, stage.recipe, good)
    assert list(map(told, plan.mends)) == [
        ("nightly", "promote", older, ""),
        ("staging", "promote", older, "--allow-skip"),
    ]


def test_without_another_image_nothing_is_named(stage: Stage) -> None:
    image = stage.image(OLD)
    stage.image(NEW, **{"amibuild:verified": ""})
    stage.promote(image)
    (mend,) = revoke.plan_revocation(stage.aws.cloud, stage.recipe, image).mends
    assert mend.image is None


def test_who_was_quicker_keeps_their_reason(stage: Stage) -> None:
    image = stage.image(OLD)
    cloud = stage.aws.cloud
    plan = revoke.plan_revocation(cloud, stage.recipe, image)
    revoked(stage, OLD)
    before = described(stage.aws, image)
    again = revoke.carry_out(
        cloud, stage.path, plan, target="local", reason="another word", subscribers=()
    )
    assert (again, described(stage.aws, image)) == (None, before)


@pytest.mark.parametrize("half", [False, True])
def test_a_bake_does_not_use_it_again(stage: Stage, half: bool) -> None:
    image = stage.image(OLD, **{"amibuild:digest": DIGEST})

    def reusable() -> str | None:
        found = find_reusable(stage.aws.cloud, image=stage.name, digest=DIGEST, max_age_days=7)
        return found.id if found else None

    assert reusable() == image
    if half:
        tag = [{"Key": "amibuild:revoked", "Value": "slow"}]
        stage.aws.ec2.create_tags(Resources=[image], Tags=tag)  # type: ignore[arg-type]
    else:
        revoked(stage, OLD)
    assert reusable() is None


def test_a_deprecated_image_is_not_used_again_either(stage: Stage) -> None:
    image = stage.image(OLD, **{"amibuild:digest": DIGEST})
    stage.deprecate(image)
    cloud = stage.aws.cloud
    assert find_reusable(cloud, image=stage.name, digest=DIGEST, max_age_days=7) is None


@pytest.mark.parametrize("reason", ["", "  ", "x" * 257, "two\nlines"])
def test_a_reason_that_is_none_is_refused_before_anything(stage: Stage, reason: str) -> None:
    image = stage.image(OLD)
    with pytest.raises(UsageError, match="--reason"):
        revoked(stage, OLD, reason)
    assert described(stage.aws, image)["State"] == "available"
