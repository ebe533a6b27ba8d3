"""Security groups: one that is in use cannot be deleted.

Source: EC2 API reference, DeleteSecurityGroup: DependencyViolation when an instance or network
interface uses it or another group names it; CannotDelete for a VPC's default group.
"""

from __future__ import annotations

from typing import Any

from moto.ec2.models import EC2Backend

from amibuild.local.overlay.desk import Refusal


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
