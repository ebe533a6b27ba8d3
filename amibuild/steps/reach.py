"""The two ways to a machine: by its agent and SSM, or by its sshd. What a bake does is the same."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from amibuild.aws.ec2 import InstanceFacts
from amibuild.aws.session import Cloud
from amibuild.communicator.base import Communicator
from amibuild.communicator.ssm import SsmCommunicator, Upload
from amibuild.errors import PlanError, ResourceFailed
from amibuild.library.bootstrap import with_ssh
from amibuild.library.step import BuildStep
from amibuild.recipe.model import Communicator as Kind
from amibuild.recipe.model import Recipe
from amibuild.recipe.ssh import Address, Ssh
from amibuild.steps.access import Admission
from amibuild.steps.connect import wait_for_agent
from amibuild.wait import Clock, Look, Observer, until

if TYPE_CHECKING:
    from amibuild.communicator.ssh_keys import Identity
    from amibuild.communicator.ssh_link import Link, Place

HARDENING, KEEPS_SSH = "hardening", "PARAM_SSH"


class Way(Protocol):
    """`name` is for a person to read."""

    name: str

    def user_data(self, script: bytes) -> bytes:
        """What a machine is launched with that runs this script and is reached this way."""

    def reach(self, instance_id: str, *, timeout_s: float, observer: Observer) -> Communicator:
        """Waits until the machine takes jobs.

        Raises: ResourceFailed when the instance dies first; WaitTimeout; HostKeyRefused.
        """

    def close(self) -> None:
        """Lets go of what it has open here."""


class OverSsm:
    name = "SSM"

    def __init__(self, cloud: Cloud, upload: Upload | None, clock: Clock | None = None) -> None:
        self._cloud = cloud
        self._upload = upload
        self._clock = clock

    def user_data(self, script: bytes) -> bytes:
        return script

    def reach(self, instance_id: str, *, timeout_s: float, observer: Observer) -> Communicator:
        wait_for_agent(self._cloud, instance_id, timeout_s=timeout_s, observer=observer)
        return SsmCommunicator(self._cloud.ssm, instance_id, upload=self._upload, clock=self._clock)

    def close(self) -> None:
        pass


class OverSsh:
    """fabric is imported where it is used: it takes half a second, and most bakes need none."""

    name = "SSH"

    def __init__(
        self, cloud: Cloud, settings: Ssh, identity: Identity, clock: Clock | None = None
    ) -> None:
        self._cloud = cloud
        self._settings = settings
        self._identity = identity
        self._clock = clock
        self._links: list[Link] = []

    def user_data(self, script: bytes) -> bytes:
        from amibuild.communicator import ssh_keys

        who = ssh_keys.login(self._settings, self._identity)
        return with_ssh(
            script,
            host_key=self._identity.host_key,
            host_public=ssh_keys.public_line(self._identity.host),
            admitted=ssh_keys.admitted(self._settings, who),
            root=who.user == "root",
        )

    def reach(self, instance_id: str, *, timeout_s: float, observer: Observer) -> Communicator:
        from amibuild.communicator.ssh import SshCommunicator
        from amibuild.communicator.ssh_link import Away, Link
        from amibuild.wait import SystemClock

        clock = self._clock or SystemClock()
        facts = self._cloud.ec2.instance(instance_id)
        link = Link(place_of(facts, self._settings), self._identity, clock)
        self._links.append(link)
        communicator = SshCommunicator(link, clock=clock)

        def look() -> Look[bool]:
            try:
                communicator.try_once()
            except Away as away:
                state = self._cloud.ec2.instance(instance_id)
                if state.state not in {"pending", "running"}:
                    raise ResourceFailed(
                        what=instance_id, state=state.state, reason=state.reason
                    ) from away
                return Look(f"not reached by SSH: {away}")
            return Look("reached", True)

        until(
            look,
            what=f"{instance_id}'s sshd",
            timeout_s=timeout_s,
            clock=self._clock,
            observer=observer,
            hint=f"is {link.place.host}:{link.place.port} open for this host (aws.source_cidr), is "
            f"{link.user} the default user of the image (ssh.user)? see the console log",
        )
        return communicator

    def close(self) -> None:
        for link in self._links:
            link.close()


def place_of(facts: InstanceFacts, settings: Ssh) -> Place:
    """Where the machine takes connections. Raises: ResourceFailed when it has no such address."""
    from amibuild.communicator.ssh_link import Place

    public = settings.address is Address.PUBLIC
    host = facts.public_ip if public else facts.private_ip
    if host is None:
        raise ResourceFailed(
            what=facts.id,
            state="without a public address" if public else "without an address",
            hint='aws.public_ip = true gives it one; ssh.address = "private" uses the other',
        )
    return Place(host, facts.ssh_port or settings.port, settings)


@dataclass(frozen=True)
class Ways:
    """To the builder, and to the fresh machine that proves its image."""

    builder: Way
    fresh: Way
    telling: Mapping[str, str]
    """What must be nowhere on the finished disk, by a name that may be shown."""

    def close(self) -> None:
        self.builder.close()
        self.fresh.close()


def ways(
    cloud: Cloud,
    recipe: Recipe,
    steps: Sequence[BuildStep],
    upload: Upload | None,
    identity_file: Path | None = None,
    clock: Clock | None = None,
    *,
    machine: str | None = None,
) -> Ways:
    """`identity_file` keeps the keys of a bake over SSH that may be resumed. A `machine` that has
    its half of them already can't be given others.

    Raises: PlanError when the recipe's key can't be read; HostError when those of a machine are
    gone, or what is in the file is damaged.
    """
    over_ssm = OverSsm(cloud, upload, clock)
    if recipe.builder.communicator is Kind.SSM:
        return Ways(over_ssm, over_ssm, {})
    from amibuild.communicator import ssh_keys

    if identity_file is None:
        identity = ssh_keys.new_identity()
    elif machine is None:
        identity = ssh_keys.kept_identity(identity_file)
    else:
        identity = ssh_keys.read_identity(identity_file, identity_file.name)
    over_ssh = OverSsh(cloud, recipe.ssh, identity, clock)
    fresh: Way = over_ssh if is_proven_over_ssh(recipe, steps) else over_ssm
    return Ways(over_ssh, fresh, identity.telling)


def ssh_of(recipe: Recipe) -> Ssh | None:
    """How its machines are reached over SSH; None where that is over SSM."""
    return recipe.ssh if recipe.builder.communicator is Kind.SSH else None


def is_proven_over_ssh(recipe: Recipe, steps: Sequence[BuildStep]) -> bool:
    """Whether the fresh machine is reached by SSH too: its image keeps sshd. Each has the agent."""
    if recipe.builder.communicator is Kind.SSM:
        return False
    hardened = next((step for step in steps if step.name == HARDENING), None)
    return hardened is None or hardened.environment.get(KEEPS_SSH) == "true"


def admission(cloud: Cloud, recipe: Recipe) -> Admission | None:
    """Who may come in, and where: nobody over SSM.

    Without aws.source_cidr that is the address from which this host speaks to EC2's endpoint, and
    so, as far as this host can know, to the machines.
    Raises: PlanError when that address says nothing to a machine that is reached by a public one.
    """
    if recipe.builder.communicator is Kind.SSM:
        return None
    if recipe.aws.source_cidr is not None:
        return Admission(recipe.aws.source_cidr, recipe.ssh.port)
    if not recipe.ssh.is_direct:
        raise PlanError(
            "aws.source_cidr: not set, and the machine is reached through another host",
            hint="name the address that the bastion or proxy comes from, such as 10.0.0.5/32",
        )
    address = source_address(cloud.url)
    near = address.is_loopback or recipe.ssh.address is Address.PRIVATE
    if not near and not address.is_global:
        raise PlanError(
            f"aws.source_cidr: not set, and this host speaks to EC2 from {address}, which is no "
            "public address: it is behind NAT, and the machine would see another one",
            hint="set it to your public address, such as 203.0.113.7/32; inside the VPC "
            'ssh.address = "private"',
        )
    return Admission(f"{address}/32", recipe.ssh.port)


def source_address(url: str) -> ipaddress.IPv4Address:
    """This host's address on the way to that URL: the routing table's answer, nothing is sent."""
    where = urlsplit(url)
    port = where.port or (443 if where.scheme == "https" else 80)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((where.hostname or "", port))
            return ipaddress.IPv4Address(probe.getsockname()[0])
    except OSError as error:
        raise PlanError(
            f"aws.source_cidr: not set, and this host's address can't be found: {error}",
            hint="set it to your address, such as 203.0.113.7/32",
        ) from error
