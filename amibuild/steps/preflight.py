"""Refuses what can be refused before anything costs money. Describe calls only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amibuild.aws.ec2 import Network
from amibuild.aws.iam import MANAGED_CORE
from amibuild.aws.session import Cloud
from amibuild.errors import Denied, NotFound, PlanError
from amibuild.library.step import BuildStep
from amibuild.recipe.model import Recipe
from amibuild.steps.artifacts import Places, artifact_problems, unreachable
from amibuild.steps.reach import is_proven_over_ssh

# Any of these lets an agent register (Systems Manager user guide, instance permissions).
ENOUGH = frozenset(
    {
        "AmazonSSMManagedInstanceCore",
        "AmazonSSMManagedEC2InstanceDefaultPolicy",
        "AmazonEC2RoleforSSM",
    }
)


@dataclass(frozen=True)
class Ready:
    """What preflight found out: where a launch may go, and what could not be made sure of."""

    networks: tuple[Network, ...]
    notes: tuple[str, ...]


def refuse(recipe: Recipe) -> None:
    """What no call is needed for; also before an image is used again. Raises: PlanError."""
    problems = [*_unsupported(recipe), *_sharing(recipe)]
    if problems:
        raise PlanError("\n".join(problems))


def preflight(
    cloud: Cloud, recipe: Recipe, steps: Sequence[BuildStep] = (), places: Places | None = None
) -> Ready:
    """Raises: PlanError, whose message lists every reason at once."""
    problems = [*_unsupported(recipe), *_sharing(recipe), *_bucket(cloud, recipe)]
    if places is not None:
        problems += artifact_problems(steps, places, bucket=recipe.aws.bucket)
        problems += unreachable(cloud, steps, places)
    notes: list[str] = []
    networks: tuple[Network, ...] = ()
    try:
        networks = cloud.ec2.networks(recipe.aws.subnet)
    except NotFound as error:
        problems.append(f"aws.subnet: {error.message}")
    try:
        if not is_proven_over_ssh(recipe, steps):
            problems += _agent_problems(cloud, recipe.aws.instance_profile, notes)
    except Denied as error:
        # A role that may bake need not be allowed to look at roles.
        notes.append(f"whether the agent may register was not checked: {error.message}")
    if problems:
        raise PlanError("\n".join(problems))
    return Ready(networks, tuple(notes))


def _unsupported(recipe: Recipe) -> list[str]:
    problems = []
    here = recipe.aws.region
    elsewhere = [region for region in recipe.publish.regions if region != here]
    if elsewhere:
        problems.append(
            f"publish.regions: copies to {', '.join(elsewhere)} are not built yet; name only {here}"
        )
    return problems


def _sharing(recipe: Recipe) -> list[str]:
    """A snapshot under the default aws/ebs key can't be shared (EBS user guide, sharing)."""
    if recipe.publish.accounts and recipe.aws.kms_key in {None, "alias/aws/ebs"}:
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
        return [f"aws.bucket: there is no bucket {recipe.aws.bucket}"]
    except Denied as error:
        return [f"aws.bucket: {recipe.aws.bucket} can't be used: {error.message}"]
    return []


def _agent_problems(cloud: Cloud, profile: str | None, notes: list[str]) -> list[str]:
    """Why the builder's agent could not register. Without a profile, Default Host Management must
    be on in this region; a profile's role must have some policy, and is trusted if it is not ours.
    """
    key = "aws.instance_profile"
    if profile is None:
        if cloud.ssm.host_management_role() is not None:
            return []
        return [
            f"{key}: not set, and Default Host Management is off in {cloud.region}, so the "
            f"builder's agent could not register; name a profile whose role has {MANAGED_CORE}"
        ]
    try:
        roles = cloud.iam.profile_roles(profile)
    except NotFound:
        return [f"{key}: there is no instance profile {profile}"]
    if not roles:
        return [f"{key}: {profile} has no role"]
    policies = cloud.iam.policies(roles[0])
    if not policies:
        return [
            f"{key}: the role {roles[0]} of {profile} has no policy, so the builder's agent could "
            f"not register; attach {MANAGED_CORE}"
        ]
    if not ENOUGH & policies:
        notes.append(f"the role {roles[0]} has policies of your own: they must let the agent in")
    return []
