"""Which images of a recipe may go, and why each other one stays. Pure: no call is made here.

An image stays while the rule has it or anything uses it. Only what could be promoted counts as a
version to keep: images that failed or were taken back must not push good ones out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from amibuild.names import Tag
from amibuild.registry import ImageFacts

# EC2 still makes these.
UNFINISHED = frozenset({"pending", "transient"})


@dataclass(frozen=True)
class Rule:
    """The newest `keep` versions stay, at least one, and all that is younger than `days`."""

    keep: int
    days: int


@dataclass(frozen=True)
class Verdict:
    """`stays` says what keeps it; empty for one that goes, for which `why` is."""

    image: ImageFacts
    stays: tuple[str, ...]
    why: str = ""

    @property
    def goes(self) -> bool:
        return not self.stays


def is_usable(image: ImageFacts) -> bool:
    return image.proven and image.revoked is None and image.state == "available"


def choose(
    images: Sequence[ImageFacts], uses: Mapping[str, Sequence[str]], rule: Rule, now: datetime
) -> tuple[Verdict, ...]:
    """A verdict on each, in their order, which is newest first. `uses` are words by image id."""
    kept = {one.id for one in [one for one in images if is_usable(one)][: max(rule.keep, 1)]}
    return tuple(_verdict(one, one.id in kept, uses.get(one.id, ()), rule, now) for one in images)


def _verdict(
    image: ImageFacts, kept: bool, uses: Sequence[str], rule: Rule, now: datetime
) -> Verdict:
    stays = []
    if Tag.EXPIRES in image.tags:
        stays.append("of a bake that is not done: `amibuild reap` has those")
    elif image.state in UNFINISHED:
        stays.append(f"it is {image.state}")
    if kept:
        stays.append(f"one of the newest {rule.keep}" if rule.keep > 1 else "the newest")
    if image.created > now - timedelta(days=rule.days):
        stays.append(f"younger than {rule.days} days")
    stays += uses
    return Verdict(image, tuple(stays), "" if stays else _why(image, rule, now))


def _why(image: ImageFacts, rule: Rule, now: datetime) -> str:
    age = f"{(now - image.created).days} days old"
    if image.revoked is not None:
        return f"{age}, revoked: {image.revoked}"
    if image.state != "available":
        return f"{age}, {image.state}"
    if not image.proven:
        return f"{age}, not verified"
    return f"{age}, and there are {rule.keep} newer"
