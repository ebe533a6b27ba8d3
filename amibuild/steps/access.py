"""The temporary security group of a bake: nothing comes in, since SSM needs no open port; over SSH
who bakes does, and nobody else."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from amibuild.aws.session import Cloud
from amibuild.errors import Duplicate, NotFound, WaitTimeout
from amibuild.journal import ResourceKind
from amibuild.names import BakeId, Tag, temporary_name
from amibuild.scope import SEARCH_S, Scope
from amibuild.wait import Look, Observer, until

VISIBLE_S = 60


@dataclass(frozen=True)
class Admission:
    cidr: str
    port: int


def make_access(
    cloud: Cloud,
    scope: Scope,
    vpc_id: str,
    bake_id: BakeId,
    tags: Mapping[str, str],
    observer: Observer,
    admission: Admission | None = None,
) -> str:
    """The id of the group, owned by the scope; EC2 would launch with it."""
    name = temporary_name(bake_id, "access")

    def create(token: str) -> str:
        def ours() -> Look[str]:
            found = cloud.ec2.security_groups_tagged({Tag.TOKEN: token})
            return Look("not visible yet", found[0] if found else None)

        try:
            return cloud.ec2.create_security_group(
                name,
                "amibuild: one address, for the time of one bake"
                if admission
                else "amibuild: no inbound, for the time of one bake",
                vpc_id,
                {**tags, Tag.TOKEN: token, "Name": name},
            )
        except Duplicate as error:
            # CreateSecurityGroup has no client token: the name is taken by our own call, whose
            # answer was lost.
            error.answered = False
            with suppress(WaitTimeout):
                return until(ours, what=name, timeout_s=SEARCH_S, observer=observer)
            raise

    group = scope.own(ResourceKind.SECURITY_GROUP, "access", name, create)

    def look() -> Look[bool]:
        # A launch in the moments after its creation may call it unknown.
        return Look("not visible yet", cloud.ec2.security_group_visible(group) or None)

    until(look, what=group, timeout_s=VISIBLE_S, observer=observer)
    if admission is not None:
        admit(cloud, group, admission, observer)
    return group


def admit(cloud: Cloud, group: str, admission: Admission, observer: Observer) -> None:
    """That this has been asked before, as by a call whose answer was lost, is as good."""

    def look() -> Look[bool]:
        try:
            with suppress(Duplicate):
                cloud.ec2.admit(group, admission.cidr, admission.port)
        except NotFound:  # it was seen, but not everywhere yet
            return Look("not visible yet")
        return Look("open", True)

    until(look, what=group, timeout_s=VISIBLE_S, observer=observer)


def admit_alone(cloud: Cloud, group: str, admission: Admission, observer: Observer) -> None:
    """The same for a group that has admitted another address at that port, which then goes."""
    admit(cloud, group, admission, observer)
    wanted = ipaddress.ip_network(admission.cidr, strict=False)
    for cidr, port in cloud.ec2.admitted(group):
        if port == admission.port and ipaddress.ip_network(cidr) != wanted:
            with suppress(NotFound):  # a rule for more ports is none of ours
                cloud.ec2.revoke(group, cidr, port)
