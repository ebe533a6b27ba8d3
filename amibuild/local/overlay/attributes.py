"""What an instance is told to be after its launch, and how it says that it is well.

moto writes any value into its books, whatever state the machine is in, and nothing of it reaches
the machine. Sources: EC2 API reference, ModifyInstanceAttribute (one attribute a call; type,
user data and optimisation of a stopped instance only), DescribeInstanceStatus, "Error codes".
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.ec2.responses import EC2Response

from amibuild.local.fleet import machine_size
from amibuild.local.overlay import imds, launching
from amibuild.local.overlay.desk import Desk, Refusal
from amibuild.local.overlay.paging import page

ATTRIBUTES = {
    "BlockDeviceMappings",
    "DisableApiStop",
    "DisableApiTermination",
    "EbsOptimized",
    "EnaSupport",
    "Groups",
    "InstanceInitiatedShutdownBehavior",
    "InstanceType",
    "Kernel",
    "Ramdisk",
    "SourceDestCheck",
    "SriovNetSupport",
    "UserData",
}
STOPPED_ONLY = {"EbsOptimized", "EnaSupport", "InstanceType", "SriovNetSupport", "UserData"}
_STATUS_MEMBERS = {
    "availability-zone": lambda s: s["AvailabilityZone"],
    "instance-state-code": lambda s: str(s["InstanceState"]["Code"]),
    "instance-state-name": lambda s: s["InstanceState"]["Name"],
    "instance-status.status": lambda s: s["InstanceStatus"]["Status"],
    "system-status.status": lambda s: s["SystemStatus"]["Status"],
}


class AttributeResponses(EC2Response):
    params: dict[str, Any]

    def describe_instance_attribute(self) -> ActionResult:
        instance, name = self._instance(), self.params.get("Attribute", "")
        self.error_on_dryrun()
        if name == "blockDeviceMapping":
            return ActionResult(
                {
                    "InstanceId": instance.id,
                    "BlockDeviceMappings": instance.block_device_mappings,
                }
            )
        if name in {"enaSupport", "enclaveOptions"}:
            value: Any = {"Value": True} if name == "enaSupport" else {"Enabled": False}
            return ActionResult({"InstanceId": instance.id, name[0].upper() + name[1:]: value})
        result: ActionResult = super().describe_instance_attribute()
        return result

    def modify_instance_attribute(self) -> ActionResult:
        instance = self._instance()
        name, value = self._asked()
        if instance.state in {"shutting-down", "terminated"}:
            raise Refusal(
                "IncorrectInstanceState", f"The instance '{instance.id}' is {instance.state}."
            )
        if name in STOPPED_ONLY and instance.state != "stopped":
            raise Refusal(
                "IncorrectInstanceState",
                f"The instance '{instance.id}' is not in the 'stopped' state.",
            )
        changes: dict[str, Callable[[Any, Any], Callable[[], None]]] = {
            "BlockDeviceMappings": self._devices,
            "DisableApiStop": _flag("disable_api_stop"),
            "DisableApiTermination": _flag("disable_api_termination"),
            "EbsOptimized": _flag("ebs_optimized"),
            "Groups": self._groups,
            "InstanceInitiatedShutdownBehavior": _behaviour,
            "InstanceType": self._type,
            "SourceDestCheck": _flag("source_dest_check"),
            "UserData": _user_data,
        }
        if name not in changes:
            raise Refusal(
                "UnsupportedOperation",
                f"ModifyInstanceAttribute of {name}: the local endpoint does not have it",
            )
        carry_out = changes[name](instance, value)
        self.error_on_dryrun()
        carry_out()
        return EmptyResult()

    def modify_instance_metadata_options(self) -> ActionResult:
        instance = self._instance()
        imds.check_options(self.params)
        imds.check_shown_tags(self.params, [tag["key"] for tag in instance.get_tags()])
        if instance.state not in {"pending", "running", "stopping", "stopped"}:
            raise Refusal(
                "IncorrectInstanceState", f"The instance '{instance.id}' is {instance.state}."
            )
        self.error_on_dryrun()
        imds.change(instance.metadata_options, self.params)
        return ActionResult(
            {"InstanceId": instance.id, "InstanceMetadataOptions": instance.metadata_options}
        )

    def monitor_instances(self) -> ActionResult:
        return self._monitor("enabled")

    def unmonitor_instances(self) -> ActionResult:
        return self._monitor("disabled")

    def describe_instance_status(self) -> ActionResult:
        ids = self.params.get("InstanceIds", [])
        everything = self.params.get("IncludeAllInstances", False)
        self.error_on_dryrun()
        found = self.ec2_backend.describe_instance_status(ids, everything, [])
        told = [_status(instance) for instance in found]
        for name, values in self._filters_from_querystring().items():
            if name not in _STATUS_MEMBERS:
                raise Refusal("InvalidParameterValue", f"The filter '{name}' is invalid")
            told = [one for one in told if _STATUS_MEMBERS[name](one) in values]
        part, token = page(told, self.params, ids)
        return ActionResult({"InstanceStatuses": part, "NextToken": token})

    def _instance(self) -> Any:
        found: Any = self.ec2_backend.get_multi_instances_by_id([self.params["InstanceId"]])
        return found[0]

    def _monitor(self, state: str) -> ActionResult:
        instances = self.ec2_backend.get_multi_instances_by_id(self.params.get("InstanceIds", []))
        self.error_on_dryrun()
        for instance in instances:
            instance.monitoring_state = state
        told = [{"InstanceId": i.id, "Monitoring": {"State": state}} for i in instances]
        return ActionResult({"InstanceMonitorings": told})

    def _asked(self) -> tuple[str, Any]:
        """The attribute that the request names, in whichever of the two ways, and its value."""
        asked = {name: self.params[name] for name in ATTRIBUTES & self.params.keys()}
        name = self.params.get("Attribute")
        if name is not None:
            wanted = {"groupSet": "Groups", "blockDeviceMapping": "BlockDeviceMappings"}.get(
                name, name[0].upper() + name[1:]
            )
            if wanted not in ATTRIBUTES:
                raise Refusal(
                    "InvalidParameterValue",
                    f"Value ({name}) for parameter attribute is invalid. Unknown attribute.",
                )
            value = self.params.get("Value")
            asked.setdefault(wanted, {"Value": value})
        if len(asked) > 1:
            raise Refusal(
                "InvalidParameterCombination",
                "Fields for multiple attribute types specified: " + ", ".join(sorted(asked)),
            )
        if not asked:
            raise Refusal("InvalidParameterCombination", "No attributes specified.")
        ((name, value),) = asked.items()
        return name, value["Value"] if isinstance(value, dict) and "Value" in value else value

    def _groups(self, instance: Any, ids: list[str]) -> Callable[[], None]:
        backend = self.ec2_backend
        groups = [backend.get_security_group_from_id(id_) for id_ in ids]
        for id_, group in zip(ids, groups, strict=True):
            if group is None:
                raise Refusal("InvalidGroup.NotFound", f"The security group '{id_}' does not exist")

        def change() -> None:
            instance.security_groups = groups
            instance.nics[0]._group_set = groups

        return change

    def _type(self, instance: Any, name: str) -> Callable[[], None]:
        wanted = launching.machine_type(name, instance.architecture)

        def change() -> None:
            instance.instance_type = name
            cpus, memory_mib = machine_size(wanted.vcpus, wanted.memory_mib)
            life = Desk.current.fleet.life(instance.id)
            if life is not None:
                life.order = replace(life.order, cpus=cpus, memory_mib=memory_mib)

        return change

    def _devices(self, instance: Any, mappings: list[dict[str, Any]]) -> Callable[[], None]:
        for mapping in mappings:
            if mapping.get("DeviceName") not in instance.block_device_mapping:
                raise Refusal(
                    "InvalidInstanceAttributeValue",
                    f"No device is currently mapped at {mapping.get('DeviceName')}",
                )

        def change() -> None:
            for mapping in mappings:
                wanted = mapping.get("Ebs", {}).get("DeleteOnTermination")
                if wanted is not None:
                    device = instance.block_device_mapping[mapping["DeviceName"]]
                    device.delete_on_termination = wanted

        return change


def _flag(attribute: str) -> Callable[[Any, Any], Callable[[], None]]:
    def change(instance: Any, value: Any) -> Callable[[], None]:
        wanted = value if isinstance(value, bool) else str(value).lower() == "true"
        return lambda: setattr(instance, attribute, wanted)

    return change


def _behaviour(instance: Any, value: str) -> Callable[[], None]:
    launching.check_shutdown_behaviour(value)
    return lambda: setattr(instance, "instance_initiated_shutdown_behavior", value)


def _user_data(instance: Any, value: Any) -> Callable[[], None]:
    # A blob has been decoded on the way here; the word of the older form has not.
    encoded = base64.b64encode(value).decode() if isinstance(value, bytes) else value
    raw = launching.read_user_data(encoded)

    def change() -> None:
        instance.user_data = Base64EncodedString(encoded) if encoded else None
        instance.raw_user_data = raw or None
        life = Desk.current.fleet.life(instance.id)
        if life is not None:
            life.order = replace(life.order, user_data=raw or None)

    return change


def _status(instance: Any) -> dict[str, Any]:
    """A running machine is `initializing` until its agent has answered: then its system is up."""
    life = Desk.current.fleet.life(instance.id)
    status, reach = "not-applicable", None
    if instance.state == "running":
        up = life is not None and life.ready_since is not None
        status, reach = ("ok", "passed") if up else ("initializing", "initializing")
    summary: dict[str, Any] = {"Status": status}
    if reach is not None:
        summary["Details"] = [{"Name": "reachability", "Status": reach}]
    return {
        "InstanceId": instance.id,
        "AvailabilityZone": instance.availability_zone,
        "InstanceState": {"Code": instance.state_code, "Name": instance.state},
        "InstanceStatus": summary,
        "SystemStatus": summary,
    }
