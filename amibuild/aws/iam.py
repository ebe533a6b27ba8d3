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

    def attached_policies(self, role: str) -> list[str]:
        """ListAttachedRolePolicies: the names of its managed policies."""
        with calling("ListAttachedRolePolicies", self._region, role):
            pages = self._client.get_paginator("list_attached_role_policies").paginate(
                RoleName=role
            )
            return [p["PolicyName"] for page in pages for p in page["AttachedPolicies"]]
