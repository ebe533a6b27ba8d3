"""Which images of a recipe may go, and why each other one stays."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from amibuild.names import Tag
from amibuild.registry import ImageFacts
from amibuild.retention import Rule, Verdict, choose

NOW = datetime(2026, 11, 28, 4, tzinfo=UTC)
MONTH = Rule(keep=2, days=30)
VERIFIED = {Tag.VERIFIED: "passed"}


def image(
    age_days: int, tags: Mapping[str, str] = VERIFIED, state: str = "available"
) -> ImageFacts:
    """One that is named by its age."""
    return ImageFacts(
        id=f"ami-{age_days}",
        name=f"game-host-{age_days}",
        image="game-host",
        version=f"{age_days}",
        digest="",
        state=state,
        created=NOW - timedelta(days=age_days),
        verified=tags.get(Tag.VERIFIED) == "passed",
        source_ami="",
        bake_id="",
        region="us-east-1",
        size_gib=8,
        snapshot_ids=(),
        tags=tags,
    )


def judged(
    *images: ImageFacts, rule: Rule = MONTH, uses: Mapping[str, list[str]] | None = None
) -> dict[str, Verdict]:
    return {one.image.version: one for one in choose(images, uses or {}, rule, NOW)}


def gone(found: Mapping[str, Verdict]) -> list[str]:
    return [name for name, one in found.items() if one.goes]


def test_the_newest_versions_stay_however_old_and_the_young_however_many() -> None:
    found = judged(*map(image, (1, 2, 3, 29, 31, 40)))
    assert gone(found) == ["31", "40"]
    assert found["1"].stays == ("one of the newest 2", "younger than 30 days")
    assert found["29"].stays == ("younger than 30 days",)
    assert found["40"].why == "40 days old, and there are 2 newer"
    assert gone(judged(*map(image, (100, 200, 300)))) == ["300"]


@pytest.mark.parametrize("keep", [0, 1])
def test_the_newest_verified_one_always_stays(keep: int) -> None:
    failed = image(50, {Tag.VERIFIED: "failed"})
    found = judged(failed, image(60), image(70), rule=Rule(keep, 0))
    assert gone(found) == ["50", "70"]


def test_what_can_not_be_used_keeps_no_good_one_from_staying() -> None:
    bad = (
        image(31, {}),
        image(32, {Tag.VERIFIED: "failed"}),
        image(33, {**VERIFIED, Tag.REVOKED: "it is slow"}, "disabled"),
        image(34, state="failed"),
    )
    found = judged(*bad, image(40), image(50), image(60))
    assert gone(found) == ["31", "32", "33", "34", "60"]
    why = [found[name].why.partition(", ")[2] for name in ("31", "32", "33", "34")]
    assert why == ["not verified", "not verified", "revoked: it is slow", "failed"]


def test_young_ones_that_failed_or_were_revoked_stay_for_a_look() -> None:
    found = judged(image(1, {}), image(2, {**VERIFIED, Tag.REVOKED: "slow"}, "disabled"))
    assert gone(found) == []


def test_what_is_used_stays_and_says_by_what() -> None:
    revoked = image(90, {**VERIFIED, Tag.REVOKED: "slow"}, "disabled")
    uses = {"ami-80": ["instance i-1 uses it", "parameter a/b uses it"], "ami-90": ["x"]}
    found = judged(*map(image, (1, 2, 80)), revoked, uses=uses)
    assert gone(found) == []
    assert found["80"].stays == ("instance i-1 uses it", "parameter a/b uses it")


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (image(90, {**VERIFIED, Tag.EXPIRES: "2026-11-22T16:15:00Z"}), "reap"),
        (image(90, {Tag.EXPIRES: "2026-11-22T16:15:00Z"}, "pending"), "reap"),
        (image(90, {}, "pending"), "it is pending"),
    ],
)
def test_what_a_bake_still_makes_is_not_for_prune(one: ImageFacts, why: str) -> None:
    found = judged(one, image(100))
    assert gone(found) == []
    assert why in found["90"].stays[0]
