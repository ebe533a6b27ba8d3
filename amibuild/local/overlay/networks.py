"""Where moto fails over an id that is not there, and the catalogues that are read at need.

Source: EC2 API reference, "Error codes".
"""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response

from amibuild.local.overlay.desk import Refusal
from amibuild.local.overlay.loading import load_instance_types


class NetworkResponses(EC2Response):
    params: dict[str, Any]

    def delete_nat_gateway(self) -> ActionResult:
        id_ = self.params["NatGatewayId"]
        if id_ not in self.ec2_backend.nat_gateways:
            raise Refusal("NatGatewayNotFound", f"The Nat Gateway {id_} was not found")
        self.error_on_dryrun()
        result: ActionResult = super().delete_nat_gateway()
        return result

    def replace_network_acl_association(self) -> ActionResult:
        id_ = self.params["AssociationId"]
        acls = self.ec2_backend.network_acls.values()
        if not any(id_ in acl._associations for acl in acls):
            raise Refusal(
                "InvalidAssociationID.NotFound", f"The association ID '{id_}' does not exist"
            )
        self.error_on_dryrun()
        result: ActionResult = super().replace_network_acl_association()
        return result

    def describe_instance_types(self) -> ActionResult:
        load_instance_types()
        self.error_on_dryrun()
        result: ActionResult = super().describe_instance_types()
        return result

    def describe_instance_type_offerings(self) -> ActionResult:
        load_instance_types()
        self.error_on_dryrun()
        result: ActionResult = super().describe_instance_type_offerings()
        return result
