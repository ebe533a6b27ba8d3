"""Launches one machine: the builder, or the fresh one that proves the image."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from amibuild.aws.ec2 import NO_ROOM, InstanceFacts, LaunchRequest, Network, Spot
from amibuild.aws.errors import MORE_TYPES
from amibuild.aws.session import Cloud
from amibuild.errors import NoCapacity, NotFound, ResourceFailed
from amibuild.journal import ResourceKind
from amibuild.names import BakeId, Tag, temporary_name
from amibuild.scope import Scope
from amibuild.wait import Look, Observer, until


class Purpose(StrEnum):
    """Goes into a tag: what the machine is for, so that a person sees it in the console."""

    BUILD = "build"
    VERIFY = "verify"


@dataclass(frozen=True)
class Launch:
    """What both machines of a bake have in common, and what they differ in."""

    purpose: Purpose
    image_id: str
    root_device: str
    volume_gib: int
    instance_types: Sequence[str]
    networks: Sequence[Network]
    security_group_id: str
    instance_profile: str | None
    kms_key: str | None
    public_ip: bool | None
    user_data: bytes | None
    tags: Mapping[str, str]
    timeout_s: float
    spot: Spot | None = None


def launch(
    cloud: Cloud, scope: Scope, bake_id: BakeId, wanted: Launch, observer: Observer
) -> InstanceFacts:
    """The instance once it runs, owned by the scope. Tries each type in each zone, in order; one
    that EC2 has no room for after all is given back, and the next is tried.

    Raises: NoCapacity when no type can be had in any zone; what `wait_until_running` raises else.
    """
    name = temporary_name(bake_id, wanted.purpose)
    which = f"{wanted.purpose}-spot" if wanted.spot else f"{wanted.purpose}"
    shortage: NoCapacity | None = None
    refused: list[str] = []
    market = " on spot" if wanted.spot else ""
    wishes = itertools.product(wanted.instance_types, wanted.networks)
    for number, (instance_type, network) in enumerate(wishes):

        def create(
            token: str, instance_type: str = instance_type, network: Network = network
        ) -> str:
            tags = {
                **wanted.tags,
                Tag.PURPOSE: str(wanted.purpose),
                Tag.TOKEN: token,
                "Name": name,
            }
            request = LaunchRequest(
                image_id=wanted.image_id,
                instance_type=instance_type,
                root_device=wanted.root_device,
                volume_gib=wanted.volume_gib,
                network=network,
                security_group_id=wanted.security_group_id,
                tags=tags,
                user_data=wanted.user_data,
                instance_profile=wanted.instance_profile,
                kms_key=wanted.kms_key,
                public_ip=wanted.public_ip,
                spot=wanted.spot,
            )
            return cloud.ec2.run_instance(request, token)

        made: str | None = None
        try:
            # A token of its own for each try: EC2 refuses one token with other parameters.
            made = scope.own(ResourceKind.INSTANCE, f"{which}-{number}", name, create)
            facts = wait_until_running(cloud, made, timeout_s=wanted.timeout_s, observer=observer)
        except NoCapacity as error:
            shortage = error
            refused.append(f"{instance_type} in {network.zone}")
        else:
            if refused:
                scope.note(f"no room{market} for {', '.join(refused)}")
            if refused or market:
                scope.note(f"{made} is a {instance_type} in {network.zone}{market}")
            return facts
        if made is not None:
            scope.remove(made, why=f"{made} did not come to run: {shortage.code}")
    assert shortage is not None  # the recipe's model holds that there is at least one type
    scope.note(f"no room{market} for {', '.join(refused)}")
    raise shortage


def wait_until_running(
    cloud: Cloud, instance_id: str, *, timeout_s: float, observer: Observer
) -> InstanceFacts:
    """Raises: ResourceFailed when it dies instead, with EC2's reason; NoCapacity when that is that
    there is no room for it; WaitTimeout."""
    return _wait_for_state(cloud, instance_id, "running", timeout_s, observer)


def wait_until_stopped(
    cloud: Cloud, instance_id: str, *, timeout_s: float, observer: Observer
) -> InstanceFacts:
    return _wait_for_state(cloud, instance_id, "stopped", timeout_s, observer)


_DEAD = {
    "running": frozenset({"shutting-down", "terminated", "stopping", "stopped"}),
    "stopped": frozenset({"shutting-down", "terminated"}),
}


def _wait_for_state(
    cloud: Cloud, instance_id: str, wanted: str, timeout_s: float, observer: Observer
) -> InstanceFacts:
    seen = False

    def look() -> Look[InstanceFacts]:
        nonlocal seen
        try:
            facts = cloud.ec2.instance(instance_id)
        except NotFound:
            if seen:
                raise
            return Look("not visible yet")  # the first reads after RunInstances may miss it
        seen = True
        if facts.state in _DEAD[wanted]:
            if wanted == "running" and facts.reason_code in NO_ROOM:
                raise _no_room(cloud, facts)
            raise ResourceFailed(what=instance_id, state=facts.state, reason=facts.reason)
        return Look(facts.state, facts if facts.state == wanted else None)

    return until(look, what=instance_id, timeout_s=timeout_s, observer=observer)


def _no_room(cloud: Cloud, facts: InstanceFacts) -> NoCapacity:
    return NoCapacity(
        operation="RunInstances",
        code=facts.reason_code,
        message=facts.reason.removeprefix(f"{facts.reason_code}: "),
        region=cloud.region,
        resource=facts.id,
        hint=MORE_TYPES,
    )
