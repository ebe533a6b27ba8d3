"""The parts of an IAM policy that its flows share: what it is for, a statement, ARNs, conditions.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amibuild.library.step import BuildStep
from amibuild.names import Partition, Tag
from amibuild.recipe.model import Recipe

# What IAM does not take as it stands.
WILD = re.compile(r"[$*?]")


@dataclass(frozen=True)
class Wanted:
    """What a policy is for: a recipe, what it compiles to, and the part of AWS that it bakes in."""

    recipe: Recipe
    steps: Sequence[BuildStep]
    partition: Partition

    def arn(self, service: str, resource: str, *, region: str = "", account: str = "") -> str:
        return f"arn:{self.partition.name}:{service}:{region}:{account}:{resource}"

    def host(self, name: str) -> str | list[str]:
        """What a condition has as the name of a service. Elsewhere than in `aws` some have the
        suffix of their partition and some have not, so both are meant."""
        names = dict.fromkeys(f"{name}.{end}" for end in ("amazonaws.com", self.partition.suffix))
        first, *others = names
        return [first, *others] if others else first


@dataclass(frozen=True)
class Statement:
    """One of a policy. `condition` maps an operator to its keys and values."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    condition: Mapping[str, Mapping[str, Any]]

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": _alone(sorted(self.actions)),
            "Resource": _alone(list(self.resources)),
        }
        return {**told, "Condition": self.condition} if self.condition else told


def _alone(values: list[str]) -> str | list[str]:
    """As IAM takes it too, and a policy has an end."""
    return values[0] if len(values) == 1 else values


def object_arns(wanted: Wanted, *patterns: str) -> tuple[str, ...]:
    """All that amibuild puts into the recipe's bucket has the same beginning."""
    bucket = literal(wanted.recipe.aws.bucket or "")
    return tuple(wanted.arn("s3", f"{bucket}/amibuild/{pattern}") for pattern in patterns)


def on_ec2(wanted: Wanted, *kinds: str, region: str | None = None) -> tuple[str, ...]:
    """Of the recipe's region. Images and snapshots of AWS itself have no account in their ARN."""
    named = (kind if kind == "*" else f"{kind}/*" for kind in kinds)
    there = region or wanted.recipe.aws.region
    return tuple(wanted.arn("ec2", one, region=there, account="*") for one in named)


def literal(text: str) -> str:
    """For where IAM takes wildcards and variables (IAM user guide, policy variables)."""
    return WILD.sub(lambda found: f"${{{found[0]}}}", text)


def lock_arns(wanted: Wanted, image: str, *, region: str) -> tuple[str, ...]:
    """The folder of an image's lock, and what is in it."""
    folder = f"parameter/amibuild/{image}/lock"
    return tuple(
        wanted.arn("ssm", name, region=region, account="*") for name in (folder, f"{folder}/*")
    )


def in_region(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {"StringEqualsIfExists": {"aws:RequestedRegion": recipe.aws.region}}


def tagged_as_ours(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Of the recipe's image, proven or not."""
    return {"StringEquals": {f"aws:ResourceTag/{Tag.IMAGE}": recipe.image.name}}


def has_an_end(key: str = f"aws:ResourceTag/{Tag.EXPIRES}") -> dict[str, str]:
    """For the operator Null: what is temporary still. A result has no such tag any longer."""
    return {key: "false"}
