"""Once more to a machine that its bake has reached over SSH, for somebody who wants a look at it.

Whatever stands between is told at once, and by name: the machine is there, and was open before.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

from amibuild.aws.ec2 import InstanceFacts
from amibuild.aws.session import Cloud
from amibuild.errors import AwsError, HostKeyRefused, PlanError, WaitTimeout
from amibuild.recipe.ssh import Ssh
from amibuild.steps.reach import place_of, source_address
from amibuild.wait import Clock, Look, SystemClock, until

if TYPE_CHECKING:
    from amibuild.communicator.ssh import SshCommunicator
    from amibuild.communicator.ssh_keys import Identity
    from amibuild.communicator.ssh_link import Place, Why

# For one that boots again just now; a port that drops what comes takes all of it.
REACH_S = 20.0
# A first boot of EC2's takes a minute or two, sshd near its end.
BOOTS_S = 180.0
ONLINE = "Online"


class NoSshd(Exception):
    """Nothing listens at its port, and its agent takes commands."""


def reach_again(
    cloud: Cloud,
    facts: InstanceFacts,
    settings: Ssh,
    identity: Identity,
    group: str | None,
    tell: Callable[[str], None],
    clock: Clock | None = None,
) -> SshCommunicator:
    """A connection that stands. `group` is the bake's security group.

    Raises: NoSshd; HostKeyRefused, WaitTimeout, CommandFailed when its user can't become root,
    each with a hint; PlanError when the recipe's key can't be read.
    """
    from amibuild.communicator.ssh import SshCommunicator
    from amibuild.communicator.ssh_link import Away, Link, Why

    clock = clock or SystemClock()
    place = place_of(facts, settings)
    link = Link(place, identity, clock)
    communicator = SshCommunicator(link, clock=clock)
    seen: list[Why] = []

    def look() -> Look[bool]:
        try:
            communicator.try_once()
        except Away as away:
            if not seen:
                tell(f"not reached at {place.host}:{place.port} yet: {away}")
            seen.append(away.why)
            if away.why is Why.REFUSED and _has_agent(cloud, facts.id):
                raise NoSshd from away
            return Look(f"not reached by SSH: {away}")
        return Look("reached", True)

    try:
        until(look, what=f"{facts.id}'s sshd", timeout_s=REACH_S, clock=clock)
    except BaseException as error:
        link.close()
        if isinstance(error, WaitTimeout):
            error.hint = _still_boots(facts, clock) + _hint(cloud, place, group, seen[-1])
        elif isinstance(error, HostKeyRefused) and identity.host.fingerprint in error.expected:
            error.hint = (
                "nothing was sent to it: a step has made new host keys there, or something is "
                "between here and the machine"
            )
        raise
    return communicator


def _still_boots(facts: InstanceFacts, clock: Clock) -> str:
    """In front of the hint, where it may be that and nothing else."""
    age_s = (clock.now() - facts.launched).total_seconds() if facts.launched else BOOTS_S
    if age_s >= BOOTS_S:
        return ""
    return (
        f"it may still boot, {max(age_s, 0):.0f} s after its start: try again in a minute. Else: "
    )


def _has_agent(cloud: Cloud, instance_id: str) -> bool:
    try:
        return cloud.ssm.ping(instance_id) == ONLINE
    except AwsError:  # a role for SSH alone
        return False


def _hint(cloud: Cloud, place: Place, group: str | None, why: Why) -> str:
    from amibuild.communicator.ssh_link import Why

    settings = place.settings
    if why is Why.LOGIN:
        if settings.agent:
            return "is the key that the bake used in your agent? `ssh-add -l` lists what is"
        if settings.certificate:
            return f"is {settings.certificate} still valid? `ssh-keygen -L` says until when"
        used = settings.private_key or "its own key"
        return (
            f"the bake came as {place.settings.user} with {used}: has a step changed that user, "
            "its authorized_keys or sshd's configuration? A sealed machine lets nobody in"
        )
    if why is Why.REFUSED:
        return f"is its sshd running, and at port {place.port}? see the console log"
    if why is Why.SILENT and settings.is_direct:
        return _admission_hint(cloud, place, group)
    way = settings.bastion or settings.proxy_command
    return f"does {way} still lead there?" if way else "see the console log"


def _admission_hint(cloud: Cloud, place: Place, group: str | None) -> str:
    """Whether this host is still one of those that may come in."""
    port = place.settings.port
    if group is None:
        return f"is port {port} open for this host? see the console log"
    ranges = [cidr for cidr, at in cloud.ec2.admitted(group) if at in {port, -1}]
    there = ", ".join(ranges) or "nobody"
    try:
        here = source_address(cloud.url)
    except PlanError:
        return f"{group} admits {there} at port {port}: is this host still among them?"
    if any(here in ipaddress.ip_network(cidr, strict=False) for cidr in ranges):
        return f"{group} admits this host ({here}) at port {port}: see the console log"
    if not here.is_global:
        return (
            f"{group} admits {there} at port {port}, and this host is behind NAT: is its public "
            "address still among them (aws.source_cidr)?"
        )
    words = ["aws", "ec2", "authorize-security-group-ingress", "--region", cloud.region]
    words += ["--group-id", group, "--protocol", "tcp", "--port", str(port)]
    words += ["--cidr", f"{here}/32"]
    return (
        f"{group} admits {there} at port {port}, and this host has the address {here} by now: "
        f"{shlex.join(words)} lets it in"
    )
