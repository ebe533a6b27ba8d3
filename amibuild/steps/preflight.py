"""Refuses what can be refused before anything costs money. Describe calls only."""

from __future__ import annotations

from dataclasses import dataclass

from amibuild.aws.ec2 import Network
from amibuild.aws.iam import MANAGED_CORE
from amibuild.aws.session import Cloud
from amibuild.errors import NotFound, PlanError
from amibuild.recipe.model import Recipe


@dataclass(frozen=True)
class Ready:
    """What preflight found out: where to launch, and what lets the agent register."""

    network: Network
    agent_role: str


def preflight(cloud: Cloud, recipe: Recipe) -> Ready:
    """Raises: PlanError, whose message lists every reason at once."""
    problems = [*_unsupported(cloud, recipe), *_sharing(recipe), *_bucket(cloud, recipe)]
    role, reason = _agent_role(cloud, recipe.aws.instance_profile)
    if reason:
        problems.append(reason)
    if problems:
        raise PlanError("\n".join(problems))
    return Ready(cloud.ec2.network(recipe.aws.subnet), role)


def _unsupported(cloud: Cloud, recipe: Recipe) -> list[str]:
    problems = []
    if recipe.builder.communicator != "ssm":
        problems.append('builder.communicator: "ssh" is not built yet; "ssm" needs no inbound port')
    elsewhere = [region for region in recipe.publish.regions if region != cloud.region]
    if elsewhere:
        problems.append(
            f"publish.regions: copies to {', '.join(elsewhere)} are not built yet; "
            f"name only {cloud.region}"
        )
    return problems


def _sharing(recipe: Recipe) -> list[str]:
    """A snapshot under the default aws/ebs key can't be shared (EBS user guide, sharing)."""
    if recipe.publish.accounts and recipe.aws.kms_key is None:
        return [
            "publish.accounts: an image under the default aws/ebs key can't be shared; "
            "name a key of your own: aws.kms_key"
        ]
    return []


def _bucket(cloud: Cloud, recipe: Recipe) -> list[str]:
    if recipe.aws.bucket is None:
        return []
    try:
        cloud.s3.check_bucket(recipe.aws.bucket)
    except NotFound:
        return [f"aws.bucket: there is no bucket {recipe.aws.bucket}, or not for this account"]
    return []


def _agent_role(cloud: Cloud, profile: str | None) -> tuple[str, str | None]:
    """The role by which the agent may register, and the problem where there is none.

    Without a profile, Default Host Management must be on in this region.
    """
    if profile is None:
        role = cloud.ssm.host_management_role()
        if role is None:
            return "", (
                "aws.instance_profile: not set, and Default Host Management is off in "
                f"{cloud.region}, so the builder's agent could not register; name a profile whose "
                f"role has {MANAGED_CORE}"
            )
        return role, None
    try:
        roles = cloud.iam.profile_roles(profile)
    except NotFound:
        return "", f"aws.instance_profile: there is no instance profile {profile}"
    if not roles:
        return "", f"aws.instance_profile: {profile} has no role"
    if MANAGED_CORE not in cloud.iam.attached_policies(roles[0]):
        return "", (
            f"aws.instance_profile: the role {roles[0]} of {profile} lacks the policy "
            f"{MANAGED_CORE}, so the builder's agent could not register"
        )
    return roles[0], None
