"""The temporary security group of a bake: nothing comes in, since SSM needs no open port."""

from __future__ import annotations

from collections.abc import Mapping

from amibuild.aws.ec2 import Network
from amibuild.aws.session import Cloud
from amibuild.journal import ResourceKind
from amibuild.names import BakeId, Tag, temporary_name
from amibuild.scope import Scope


def make_access(
    cloud: Cloud, scope: Scope, network: Network, bake_id: BakeId, tags: Mapping[str, str]
) -> str:
    """The id of the group, owned by the scope."""
    name = temporary_name(bake_id, "access")

    def create(token: str) -> str:
        return cloud.ec2.create_security_group(
            name,
            "amibuild: no inbound, for the time of one bake",
            network.vpc_id,
            {**tags, Tag.TOKEN: token, "Name": name},
        )

    return scope.own(ResourceKind.SECURITY_GROUP, "access", name, create)
