"""Security groups and key pairs: what their names and rules may be, and what is in use.

Sources: EC2 API reference, CreateSecurityGroup (which names and descriptions are allowed),
DeleteSecurityGroup (DependencyViolation when an instance or network interface uses it or another
group names it; CannotDelete for a VPC's default group), AuthorizeSecurityGroupIngress,
CreateKeyPair, ImportKeyPair, "Error codes".
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import InvalidKeyPairFormatError
from moto.ec2.models import EC2Backend
from moto.ec2.responses import EC2Response

from amibuild.local.overlay.desk import Refusal

TEXT = re.compile(r"[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{1,255}")
KEY_TYPES = {"rsa", "ed25519"}
LONGEST_KEY_NAME = 255


class GroupBooks(EC2Backend):
    def _delete_security_group(self, vpc_id: str | None, group_id: str) -> None:
        group = self.get_security_group_from_id(group_id)
        if group is not None and group.is_default:
            raise Refusal(
                "CannotDelete",
                f'the specified group: "{group_id}" name: "default" cannot be deleted by a user',
            )
        if self._is_used(group_id):
            raise Refusal("DependencyViolation", f"resource {group_id} has a dependent object")
        super()._delete_security_group(vpc_id, group_id)

    def _is_used(self, group_id: str) -> bool:
        instances: list[Any] = self.all_instances()
        alive = [i for i in instances if i.state != "terminated"]
        holders = [g for i in alive for g in i.security_groups]
        interfaces = list(self.enis.values())
        ended = {i.id for i in instances} - {i.id for i in alive}
        holders += [
            g
            for eni in interfaces
            if eni.instance is None or eni.instance.id not in ended
            for g in eni.group_set
        ]
        if group_id in {g.id for g in holders}:
            return True
        groups = [g for by_id in self.groups.values() for g in by_id.values()]
        named = {
            source.get("GroupId")
            for g in groups
            if g.id != group_id
            for rule in (*g.ingress_rules, *g.egress_rules)
            if (source := rule.source_group)
        }
        return group_id in named


class GroupResponses(EC2Response):
    params: dict[str, Any]

    def create_security_group(self) -> ActionResult:
        name, description = self.params["GroupName"], self.params["Description"]
        vpc_id = self.params.get("VpcId")
        if name.lower() == "default":
            raise Refusal("InvalidGroup.Reserved", f"The security group '{name}' is reserved")
        if name.startswith("sg-"):
            raise Refusal(
                "InvalidParameterValue",
                "Group names may not be in the format sg-*.",
            )
        for what, text in (("groupName", name), ("groupDescription", description)):
            if not TEXT.fullmatch(text):
                raise Refusal(
                    "InvalidParameterValue",
                    f"Value ({text}) for parameter {what} is invalid. Character sets beyond ASCII "
                    "are not supported, and it has at most 255 characters.",
                )
        if vpc_id and vpc_id not in self.ec2_backend.vpcs:
            raise Refusal("InvalidVpcID.NotFound", f"The vpc ID '{vpc_id}' does not exist")
        result: ActionResult = super().create_security_group()
        return result

    def authorize_security_group_ingress(self) -> ActionResult:
        return self._authorize("ingress")

    def authorize_security_group_egress(self) -> ActionResult:
        return self._authorize("egress")

    def _authorize(self, direction: str) -> ActionResult:
        """All rules of the request, or none: moto keeps those before the one that it refuses."""
        backend: Any = self.ec2_backend
        asked = self.params.get("GroupId") or self.params.get("GroupName")
        group = backend.get_security_group_by_name_or_id(asked) if asked else None
        if asked and group is None:
            raise Refusal("InvalidGroup.NotFound", f"The security group '{asked}' does not exist")
        if group is None:
            raise Refusal(
                "MissingParameter",
                "The request must contain the parameter groupName or groupId",
            )
        permissions = self.params.get("IpPermissions", [])
        for permission in permissions or [self.params]:
            _check_permission(permission)
        if any(permissions.count(one) > 1 for one in permissions):
            raise Refusal(
                "InvalidParameterValue", "The same permission must not appear multiple times"
            )
        self.error_on_dryrun()
        before = list(getattr(group, f"{direction}_rules"))
        added: list[Any] = []
        try:
            for rule in self._process_rules_from_querystring():
                authorize = getattr(backend, f"authorize_security_group_{direction}")
                added += authorize(**rule)[0]
        except BaseException:
            getattr(group, f"{direction}_rules")[:] = before
            raise
        return ActionResult({"Return": True, "SecurityGroupRules": added})

    def modify_security_group_rules(self) -> ActionResult:
        if not all(rule.get("SecurityGroupRule") for rule in self.params["SecurityGroupRules"]):
            raise Refusal(
                "MissingParameter", "The request must contain the parameter SecurityGroupRule"
            )
        self.error_on_dryrun()
        result: ActionResult = super().modify_security_group_rules()
        return result

    def create_key_pair(self) -> ActionResult:
        _check_key_name(self.params["KeyName"])
        kind, form = self.params.get("KeyType", "rsa"), self.params.get("KeyFormat", "pem")
        if kind not in KEY_TYPES:
            raise Refusal("InvalidParameterValue", f"Invalid value '{kind}' for keyType.")
        if form != "pem":
            raise Refusal(
                "UnsupportedOperation",
                f"CreateKeyPair with KeyFormat {form}: the local endpoint does not have it",
            )
        # moto writes down only what was asked for.
        self.params = {**self.params, "KeyType": kind}
        result: ActionResult = super().create_key_pair()
        return result

    def import_key_pair(self) -> ActionResult:
        _check_key_name(self.params["KeyName"])
        try:
            result: ActionResult = super().import_key_pair()
        except InvalidKeyPairFormatError as error:
            raise Refusal(
                "InvalidKey.Format", "Key is not in valid OpenSSH public key format"
            ) from error
        return result


def _check_key_name(name: str) -> None:
    if not name or len(name) > LONGEST_KEY_NAME or not name.isascii():
        raise Refusal(
            "InvalidParameterValue",
            f"Value ({name}) for parameter keyName is invalid. It has 1 to {LONGEST_KEY_NAME} "
            "ASCII characters.",
        )


def _check_permission(permission: dict[str, Any]) -> None:
    ranges = [*permission.get("IpRanges", []), *permission.get("Ipv6Ranges", [])]
    blocks = [r.get("CidrIp") or r.get("CidrIpv6") for r in (*ranges, permission)]
    for block in filter(None, blocks):
        try:
            ipaddress.ip_network(block, strict=False)
        except ValueError as error:
            raise Refusal("InvalidParameterValue", f"CIDR block {block} is malformed") from error
    protocol = str(permission.get("IpProtocol"))
    first, last = int(permission.get("FromPort", 0)), int(permission.get("ToPort", 65_535))
    if protocol in {"tcp", "udp", "6", "17"} and not -1 <= first <= last <= 65_535:
        raise Refusal(
            "InvalidParameterValue", f"Invalid {protocol.upper()} port range ({first}:{last})"
        )
