"""What a builder's instance profile allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amibuild.aws.errors import calling

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient

MANAGED_CORE = "AmazonSSMManagedInstanceCore"


class Iam:
    def __init__(self, client: IAMClient, region: str) -> None:
        self._client = client
        self._region = region

    def profile_roles(self, profile: str) -> list[str]:
        """GetInstanceProfile: the names of its roles (there is at most one). Raises: NotFound."""
        with calling("GetInstanceProfile", self._region, profile):
            found = self._client.get_instance_profile(InstanceProfileName=profile)
            return [role["RoleName"] for role in found["InstanceProfile"]["Roles"]]

    def policies(self, role: str) -> set[str]:
        """The names of its policies (ListAttachedRolePolicies), of its inline ones too
        (ListRolePolicies)."""
        with calling("ListAttachedRolePolicies", self._region, role):
            pages = self._client.get_paginator("list_attached_role_policies").paginate(
                RoleName=role
            )
            found = {p["PolicyName"] for page in pages for p in page["AttachedPolicies"]}
        with calling("ListRolePolicies", self._region, role):
            inline = self._client.get_paginator("list_role_policies").paginate(RoleName=role)
            return found | {name for page in inline for name in page["PolicyNames"]}
