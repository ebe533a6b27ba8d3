"""RunInstances: everything that EC2 refuses before a machine exists.

Sources: EC2 API reference, RunInstances and "Error codes"; the limit of user-data is that of the
User Guide, "Run commands at launch": 16 KB, in raw form, before base64. Messages as clients have
reported them, such as jenkinsci/ec2-plugin #252 for the count, convox/rack #2539 and
meadowdata/meadowrun #84 for the limits.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moto.ec2.models import instance_types

from amibuild.local.overlay.desk import Refusal
from amibuild.local.overlay.loading import load_instance_types

USER_DATA_LIMIT = 16_384
# Of all regions: it is one host's. EC2's own differ by account. With driver none, 128 are asked for
# in 2 s and run after 4.
INSTANCE_LIMIT = 128
_INSTANCE = re.compile(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})")
_IMAGE = re.compile(r"ami-(?:[0-9a-f]{8}|[0-9a-f]{17})")
_RESOLVE = "resolve:ssm:"


@dataclass(frozen=True)
class MachineType:
    name: str
    vcpus: int
    memory_mib: int


def check_instance_ids(ids: list[str]) -> None:
    for id_ in ids:
        if not _INSTANCE.fullmatch(id_):
            raise Refusal("InvalidInstanceID.Malformed", f'Invalid id: "{id_}"')


def check_image_id(id_: str) -> None:
    if not _IMAGE.fullmatch(id_):
        raise Refusal("InvalidAMIID.Malformed", f'Invalid id: "{id_}" (expecting "ami-...")')


def fingerprint(params: dict[str, Any]) -> str:
    """Equal for requests that a client token may repeat."""
    asked = {k: v for k, v in params.items() if k not in {"ClientToken", "DryRun"}}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def mismatch() -> Refusal:
    return Refusal(
        "IdempotentParameterMismatch",
        "Arguments on this idempotent request are inconsistent with arguments used in previous "
        "request(s).",
    )


def check_request(params: dict[str, Any]) -> None:
    """Raises: Refusal for what EC2 refuses by looking at the request alone, or we don't have."""
    least, most = int(params.get("MinCount", 1)), int(params.get("MaxCount", 1))
    for word, count in (("Minimum", least), ("Maximum", most)):
        if count < 1:
            raise Refusal(
                "InvalidParameterValue", f"{word} instance count must be greater than zero"
            )
    if least > most:
        raise Refusal(
            "InvalidParameterValue",
            "Maximum instance count must not be smaller than minimum instance count",
        )
    check_shutdown_behaviour(params.get("InstanceInitiatedShutdownBehavior", "stop"))
    interfaces = params.get("NetworkInterfaces", [])
    if interfaces:
        if params.get("SubnetId"):
            raise _not_both("subnet ID")
        if params.get("SecurityGroupIds") or params.get("SecurityGroups"):
            raise _not_both("security groups")
    for name, asked in _asked_in_vain(params, interfaces):
        if asked:
            raise Refusal(
                "UnsupportedOperation",
                f"RunInstances with {name}: the local endpoint does not have it",
            )


def launch_count(params: dict[str, Any], *, at_work: int, spot: bool) -> int:
    """As many as may be launched beside those `at_work`, up to MaxCount.

    Raises: Refusal where that is less than MinCount.
    """
    least, most = int(params.get("MinCount", 1)), int(params.get("MaxCount", 1))
    check_limit(at_work + least, spot=spot)
    return min(most, INSTANCE_LIMIT - at_work)


def check_limit(wanted: int, *, spot: bool = False) -> None:
    """Raises: Refusal where so many may not be at work at once.

    EC2's message goes on with where to ask for more. Here nobody can be asked.
    """
    if wanted <= INSTANCE_LIMIT:
        return
    if spot:
        raise Refusal("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
    raise Refusal(
        "InstanceLimitExceeded",
        f"You have requested more instances ({wanted}) than your current instance limit of "
        f"{INSTANCE_LIMIT} allows for the specified instance type.",
    )


def _not_both(what: str) -> Refusal:
    return Refusal(
        "InvalidParameterCombination",
        f"Network interfaces and an instance-level {what} may not be specified on the same request",
    )


def _asked_in_vain(
    params: dict[str, Any], interfaces: list[dict[str, Any]]
) -> Iterator[tuple[str, bool]]:
    """What moto takes without a word and no machine here gets."""
    for name in (
        *("AdditionalInfo", "CpuOptions", "ElasticGpuSpecification", "EnablePrimaryIpv6"),
        *("ElasticInferenceAccelerators", "Ipv6AddressCount", "Ipv6Addresses", "KernelId"),
        *("LicenseSpecifications", "PrivateIpAddress", "RamdiskId", "SecondaryInterfaces"),
    ):
        yield name, bool(params.get(name))
    yield "HibernationOptions", bool(params.get("HibernationOptions", {}).get("Configured"))
    yield "EnclaveOptions", bool(params.get("EnclaveOptions", {}).get("Enabled"))
    reservation = params.get("CapacityReservationSpecification", {})
    yield "CapacityReservationTarget", bool(reservation.get("CapacityReservationTarget"))
    placement = params.get("Placement", {})
    yield "Placement.Tenancy", placement.get("Tenancy", "default") != "default"
    for name in ("Affinity", "GroupId", "GroupName", "HostId", "HostResourceGroupArn"):
        yield f"Placement.{name}", bool(placement.get(name))
    yield "several network interfaces", len(interfaces) > 1
    for interface in interfaces:
        for name in ("PrivateIpAddress", "PrivateIpAddresses", "Ipv6AddressCount", "Ipv6Addresses"):
            yield f"NetworkInterfaces.{name}", bool(interface.get(name))


def check_shutdown_behaviour(value: str) -> None:
    if value not in {"stop", "terminate"}:
        raise Refusal(
            "InvalidParameterValue",
            f"Value ({value}) for parameter instanceInitiatedShutdownBehavior is invalid. "
            f"Unknown instance shutdown behavior.",
        )


def check_profile(backend: Any, profile: dict[str, str]) -> None:
    """moto tells NoSuchEntity, which is IAM's word for it. EC2 names its own parameter."""
    from moto.iam.models import iam_backends

    known = iam_backends[backend.account_id]["aws"].instance_profiles.values()
    for kind, attribute in (("Name", "name"), ("Arn", "arn")):
        asked = profile.get(kind)
        if asked and asked not in {getattr(p, attribute) for p in known}:
            raise Refusal(
                "InvalidParameterValue",
                f"Value ({asked}) for parameter iamInstanceProfile.{kind.lower()} is invalid. "
                f"Invalid IAM Instance Profile {'name' if kind == 'Name' else 'ARN'}",
            )


def check_zone(backend: Any, zone: str | None) -> None:
    # Packer sends an empty one where its template names none, and EC2 takes it for that.
    if zone and backend.get_zone_by_name(zone) is None:
        raise Refusal("InvalidParameterValue", f"Invalid availability zone: [{zone}]")


def find_image(backend: Any, image_id: str | None) -> Any:
    """The image of a launch; `resolve:ssm:name` names a parameter that holds its id."""
    if not image_id:
        raise Refusal("MissingParameter", "The request must contain the parameter ImageId")
    if image_id.startswith(_RESOLVE):
        image_id = _resolve(backend, image_id.removeprefix(_RESOLVE))
    check_image_id(image_id)
    image = backend.amis.get(image_id)
    if image is None:
        raise Refusal("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    if image.state != "available":
        raise Refusal("InvalidAMIID.Unavailable", f"The image ID '{image_id}' is not available")
    return image


def _resolve(backend: Any, name: str) -> str:
    from moto.ssm.models import ssm_backends

    parameter = ssm_backends[backend.account_id][backend.region_name].get_parameter(name)
    if parameter is None:
        raise Refusal("InvalidParameterValue", f"Parameter {name} not found")
    return str(parameter.value)


def read_user_data(encoded: Any) -> bytes | None:
    if encoded is None:
        return None
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(
            "InvalidUserData.Malformed", "Invalid BASE64 encoding of user data."
        ) from error
    if len(raw) > USER_DATA_LIMIT:
        raise Refusal("InvalidParameterValue", f"User data is limited to {USER_DATA_LIMIT} bytes")
    return raw


def machine_type(name: str, architecture: str) -> MachineType:
    load_instance_types()
    facts = instance_types.INSTANCE_TYPES.get(name)
    if facts is None:
        raise Refusal("InvalidParameterValue", f"Invalid value '{name}' for InstanceType.")
    known = facts.get("ProcessorInfo", {}).get("SupportedArchitectures", [architecture])
    if architecture not in known:
        raise Refusal(
            "InvalidParameterValue",
            f"The architecture '{','.join(known)}' of the specified instance type does not match "
            f"the architecture '{architecture}' of the specified AMI. Specify an instance type and "
            "an AMI that have matching architectures, and try again.",
        )
    return MachineType(name, facts["VCpuInfo"]["DefaultVCpus"], facts["MemoryInfo"]["SizeInMiB"])


def block_devices(backend: Any, image: Any, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The image's mappings with the request's over them, the root device first.

    Each with its size; those that NoDevice takes away, and instance stores, are left out.
    Source: EC2 API reference, BlockDeviceMapping and EbsBlockDevice; DeleteOnTermination is that
    of the User Guide, "Preserve data when an instance is terminated" (CLI, at launch: delete).
    """
    root = image.root_device_name
    own = {device.name: device for device in image.devices}
    made = {name: device.launched({}) for name, device in own.items()}
    for mapping in asked:
        name, wanted = mapping.get("DeviceName"), mapping.get("Ebs", {})
        if not name:
            raise Refusal("MissingParameter", "The request must contain the parameter deviceName")
        if name == root:
            if wanted.get("SnapshotId", made[root]["SnapshotId"]) != made[root]["SnapshotId"]:
                raise Refusal(
                    "InvalidBlockDeviceMapping", "snapshotId cannot be modified on root device"
                )
            made[root] = own[root].launched(wanted)
        elif "NoDevice" in mapping:
            made.pop(name, None)
        elif "Ebs" in mapping:
            made[name] = own[name].launched(wanted) if name in own else wanted
    return [
        {"DeviceName": name, "Ebs": _complete(backend, ebs)}
        for name, ebs in sorted(made.items(), key=lambda item: item[0] != root)
    ]


def _complete(backend: Any, ebs: dict[str, Any]) -> dict[str, Any]:
    """With what EC2 fills in; refused when it can't be."""
    snapshot_id, size = ebs.get("SnapshotId"), int(ebs.get("VolumeSize") or 0)
    if snapshot_id:
        snapshot = backend.snapshots.get(snapshot_id)
        if snapshot is None:
            raise Refusal(
                "InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist."
            )
        size = size or snapshot.volume_size
        if size < snapshot.volume_size:
            raise Refusal(
                "InvalidBlockDeviceMapping",
                f"Volume of size {size}GB is smaller than snapshot '{snapshot_id}', "
                f"expect size >= {snapshot.volume_size}GB",
            )
    if not size:
        raise Refusal(
            "MissingParameter", "The request must contain the parameter size or snapshotId"
        )
    return {"VolumeType": "gp2", "DeleteOnTermination": True, **ebs, "VolumeSize": size}


def public_key(backend: Any, name: str | None) -> str | None:
    if name is None:
        return None
    pair = backend.key_pairs.get(name)
    if pair is None:
        raise Refusal("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")
    return str(pair.public_key)
