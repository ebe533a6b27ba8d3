"""Instances, volumes and security groups. Each method is one call, and says which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from amibuild.aws.errors import calling
from amibuild.errors import NotFound
from amibuild.names import InstanceId, Tag

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import (
        FilterTypeDef,
        InstanceTypeDef,
        SecurityGroupTypeDef,
        TagSpecificationTypeDef,
        TagTypeDef,
        VolumeTypeDef,
    )


@dataclass(frozen=True)
class Network:
    subnet_id: str
    vpc_id: str
    zone: str


@dataclass(frozen=True)
class Spot:
    """A wish for a spot instance. `max_price` is in US dollars an hour; None means up to what it
    costs on demand."""

    max_price: str | None = None


@dataclass(frozen=True)
class LaunchRequest:
    """One RunInstances call. `kms_key` None means the account's default key, `spot` None that the
    instance is on demand."""

    image_id: str
    instance_type: str
    root_device: str
    volume_gib: int
    network: Network
    security_group_id: str
    tags: Mapping[str, str]
    user_data: bytes | None = None
    instance_profile: str | None = None
    kms_key: str | None = None
    public_ip: bool | None = None
    spot: Spot | None = None


# StateReason (API reference) of a spot instance that EC2 took back, and of one that it had no room
# for although RunInstances was answered.
TAKEN_BACK = frozenset({"Server.SpotInstanceShutdown", "Server.SpotInstanceTermination"})
NO_ROOM = frozenset({*TAKEN_BACK, "Server.InsufficientInstanceCapacity"})


@dataclass(frozen=True)
class InstanceFacts:
    """`reason` says why the state is what it is, and `reason_code` which of EC2's reasons that is;
    `launched` is the last start.

    `ssh_port` is there when a tag says that port 22 of the machine is reached by another one.
    """

    id: InstanceId
    state: str
    reason: str
    zone: str
    is_spot: bool
    reason_code: str = ""
    private_ip: str | None = None
    public_ip: str | None = None
    ssh_port: int | None = None
    launched: datetime | None = None

    @property
    def taken_back(self) -> bool:
        """It was a spot instance, and EC2 ended it for want of room or for its price."""
        return self.reason_code in TAKEN_BACK


class Ec2:
    def __init__(self, client: EC2Client, region: str) -> None:
        self._client = client
        self._region = region

    def networks(self, subnet_id: str | None) -> tuple[Network, ...]:
        """The named subnet, else the default VPC's, one in each zone (DescribeSubnets).

        Raises: NotFound when there is neither.
        """
        with calling("DescribeSubnets", self._region, subnet_id):
            if subnet_id:
                answer = self._client.describe_subnets(SubnetIds=[subnet_id])
            else:
                answer = self._client.describe_subnets(
                    Filters=[{"Name": "default-for-az", "Values": ["true"]}]
                )
            found = [
                Network(subnet["SubnetId"], subnet["VpcId"], subnet["AvailabilityZone"])
                for subnet in answer["Subnets"]
            ]
        if not found:
            raise NotFound(
                operation="DescribeSubnets",
                code="InvalidSubnetID.NotFound",
                message="the account has no default subnet here",
                region=self._region,
                hint="name one: aws.subnet",
            )
        return tuple(sorted(found, key=lambda network: network.zone))

    def enabled_regions(self) -> tuple[str, ...]:
        """DescribeRegions: those that are enabled for the account, by name."""
        with calling("DescribeRegions", self._region):
            found = self._client.describe_regions()["Regions"]
        return tuple(sorted(region["RegionName"] for region in found))

    def create_security_group(
        self, name: str, description: str, vpc_id: str, tags: Mapping[str, str]
    ) -> str:
        """CreateSecurityGroup: nothing may come in, everything may go out."""
        with calling("CreateSecurityGroup", self._region, name):
            return self._client.create_security_group(
                GroupName=name,
                Description=description,
                VpcId=vpc_id,
                TagSpecifications=[_tagged("security-group", tags)],
            )["GroupId"]

    def security_group_visible(self, group_id: str) -> bool:
        """DescribeSecurityGroups: whether EC2 knows it by now."""
        try:
            with calling("DescribeSecurityGroups", self._region, group_id):
                self._client.describe_security_groups(GroupIds=[group_id])
        except NotFound:
            return False
        return True

    def security_group_vpc(self, group_id: str) -> str | None:
        """DescribeSecurityGroups: where it is; None when EC2 does not know it."""
        try:
            with calling("DescribeSecurityGroups", self._region, group_id):
                found = self._client.describe_security_groups(GroupIds=[group_id])
                return found["SecurityGroups"][0].get("VpcId")
        except NotFound:
            return None

    def admitted(self, group_id: str) -> tuple[tuple[str, int], ...]:
        """DescribeSecurityGroups: each range of addresses that may come in, and its first port;
        -1 is for all."""
        try:
            with calling("DescribeSecurityGroups", self._region, group_id):
                found = self._client.describe_security_groups(GroupIds=[group_id])
                return tuple(
                    (one["CidrIp"], rule.get("FromPort", -1))
                    for rule in found["SecurityGroups"][0].get("IpPermissions", [])
                    for one in rule.get("IpRanges", [])
                )
        except NotFound:
            return ()

    def admit(self, group_id: str, cidr: str, port: int) -> None:
        """AuthorizeSecurityGroupIngress: those addresses, to that port. Raises: Duplicate."""
        with calling("AuthorizeSecurityGroupIngress", self._region, group_id):
            self._client.authorize_security_group_ingress(
                GroupId=group_id,
                IpPermissions=[
                    {
                        "IpProtocol": "tcp",
                        "FromPort": port,
                        "ToPort": port,
                        "IpRanges": [{"CidrIp": cidr, "Description": "who bakes"}],
                    }
                ],
            )

    def revoke(self, group_id: str, cidr: str, port: int) -> None:
        """RevokeSecurityGroupIngress: what `admit` has admitted. Raises: NotFound when there is no
        such rule."""
        with calling("RevokeSecurityGroupIngress", self._region, group_id):
            self._client.revoke_security_group_ingress(
                GroupId=group_id, IpProtocol="tcp", FromPort=port, ToPort=port, CidrIp=cidr
            )

    def delete_security_group(self, group_id: str) -> None:
        with calling("DeleteSecurityGroup", self._region, group_id):
            self._client.delete_security_group(GroupId=group_id)

    def run_instance(self, request: LaunchRequest, token: str) -> InstanceId:
        """RunInstances, for one instance, with IMDSv2 required and an encrypted root volume."""
        ebs: dict[str, Any] = {
            "VolumeSize": request.volume_gib,
            "VolumeType": "gp3",
            "DeleteOnTermination": True,
            "Encrypted": True,
        }
        if request.kms_key:
            ebs["KmsKeyId"] = request.kms_key
        interface: dict[str, Any] = {
            "DeviceIndex": 0,
            "SubnetId": request.network.subnet_id,
            "Groups": [request.security_group_id],
            "DeleteOnTermination": True,
        }
        if request.public_ip is not None:
            interface["AssociatePublicIpAddress"] = request.public_ip
        optional: dict[str, Any] = {}
        if request.user_data is not None:
            optional["UserData"] = request.user_data
        if request.instance_profile:
            optional["IamInstanceProfile"] = {"Name": request.instance_profile}
        born = ["instance", "volume", "network-interface"]
        if request.spot is not None:
            optional["InstanceMarketOptions"] = _market(request.spot)
            born.append("spot-instances-request")
        with calling("RunInstances", self._region, request.image_id):
            made = self._client.run_instances(
                ImageId=request.image_id,
                InstanceType=request.instance_type,  # type: ignore[arg-type]  # AWS knows more
                MinCount=1,
                MaxCount=1,
                ClientToken=token,
                BlockDeviceMappings=[{"DeviceName": request.root_device, "Ebs": ebs}],  # type: ignore[typeddict-item]
                NetworkInterfaces=[interface],  # type: ignore[list-item]
                # Powers itself off when nobody renews its lease: then it shall be gone.
                InstanceInitiatedShutdownBehavior="terminate",
                MetadataOptions={
                    "HttpTokens": "required",
                    "HttpEndpoint": "enabled",
                    "HttpPutResponseHopLimit": 1,
                },
                TagSpecifications=[_tagged(kind, request.tags) for kind in born],
                **optional,
            )
            return InstanceId(made["Instances"][0]["InstanceId"])

    def instance(self, instance_id: str) -> InstanceFacts:
        """DescribeInstances for one. Raises: NotFound."""
        with calling("DescribeInstances", self._region, instance_id):
            found = self._client.describe_instances(InstanceIds=[instance_id])
            instances = [i for r in found["Reservations"] for i in r["Instances"]]
            if instances:
                instance = instances[0]
                why = instance.get("StateReason", {})
                return InstanceFacts(
                    id=InstanceId(instance["InstanceId"]),
                    state=instance["State"]["Name"],
                    reason=why.get("Message", ""),
                    zone=instance["Placement"]["AvailabilityZone"],
                    is_spot=instance.get("InstanceLifecycle") == "spot",
                    reason_code=why.get("Code", ""),
                    private_ip=instance.get("PrivateIpAddress"),
                    public_ip=instance.get("PublicIpAddress") or None,
                    ssh_port=_port(_tags(instance.get("Tags", []))),
                    launched=instance.get("LaunchTime"),
                )
        raise NotFound(
            operation="DescribeInstances",
            code="InvalidInstanceID.NotFound",
            message="no such instance",
            region=self._region,
            resource=instance_id,
        )

    def stop_instance(self, instance_id: str) -> None:
        with calling("StopInstances", self._region, instance_id):
            self._client.stop_instances(InstanceIds=[instance_id])

    def terminate_instance(self, instance_id: str) -> None:
        with calling("TerminateInstances", self._region, instance_id):
            self._client.terminate_instances(InstanceIds=[instance_id])

    def console_output(self, instance_id: str) -> str:
        """GetConsoleOutput, the latest there is. boto3 has decoded the base64 already.

        Without `Latest` EC2 answers with what it kept some time after the last start or stop (EC2
        API reference), which of a machine that hangs while it boots is mostly nothing.
        """
        with calling("GetConsoleOutput", self._region, instance_id):
            found = self._client.get_console_output(InstanceId=instance_id, Latest=True)
        return found.get("Output", "")

    def create_volume(
        self, snapshot_id: str, zone: str, kms_key: str | None, tags: Mapping[str, str], token: str
    ) -> str:
        """CreateVolume from a snapshot."""
        optional: dict[str, Any] = {"KmsKeyId": kms_key} if kms_key else {}
        with calling("CreateVolume", self._region, snapshot_id):
            return self._client.create_volume(
                SnapshotId=snapshot_id,
                AvailabilityZone=zone,
                VolumeType="gp3",
                Encrypted=True,
                ClientToken=token,
                TagSpecifications=[_tagged("volume", tags)],
                **optional,
            )["VolumeId"]

    def volume_state(self, volume_id: str) -> str:
        """DescribeVolumes: creating, available, in-use, deleting, error."""
        with calling("DescribeVolumes", self._region, volume_id):
            return self._client.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["State"]

    def attach_volume(self, volume_id: str, instance_id: str, device: str) -> None:
        with calling("AttachVolume", self._region, volume_id):
            self._client.attach_volume(VolumeId=volume_id, InstanceId=instance_id, Device=device)

    def delete_volume(self, volume_id: str) -> None:
        with calling("DeleteVolume", self._region, volume_id):
            self._client.delete_volume(VolumeId=volume_id)

    def instances_tagged(self, tags: Mapping[str, str]) -> list[str]:
        """DescribeInstances by tags; those that are gone already are left out."""
        return [i["InstanceId"] for i in self._instances(_filters(tags))]

    def security_groups_tagged(self, tags: Mapping[str, str]) -> list[str]:
        return [g["GroupId"] for g in self._security_groups(_filters(tags))]

    def volumes_tagged(self, tags: Mapping[str, str]) -> list[str]:
        return [v["VolumeId"] for v in self._volumes(_filters(tags))]

    def instances_with(self, key: str) -> dict[str, dict[str, str]]:
        """Instance id -> its tags, for those that have this one and are not gone."""
        return {i["InstanceId"]: _tags(i["Tags"]) for i in self._instances(_having(key))}

    def security_groups_with(self, key: str) -> dict[str, dict[str, str]]:
        return {g["GroupId"]: _tags(g["Tags"]) for g in self._security_groups(_having(key))}

    def volumes_with(self, key: str) -> dict[str, dict[str, str]]:
        return {v["VolumeId"]: _tags(v["Tags"]) for v in self._volumes(_having(key))}

    def _instances(self, filters: list[FilterTypeDef]) -> list[InstanceTypeDef]:
        alive: FilterTypeDef = {
            "Name": "instance-state-name",
            "Values": ["pending", "running", "stopping", "stopped", "shutting-down"],
        }
        with calling("DescribeInstances", self._region):
            pages = self._client.get_paginator("describe_instances").paginate(
                Filters=[alive, *filters]
            )
            return [i for page in pages for r in page["Reservations"] for i in r["Instances"]]

    def _security_groups(self, filters: list[FilterTypeDef]) -> list[SecurityGroupTypeDef]:
        with calling("DescribeSecurityGroups", self._region):
            pages = self._client.get_paginator("describe_security_groups").paginate(Filters=filters)
            return [group for page in pages for group in page["SecurityGroups"]]

    def _volumes(self, filters: list[FilterTypeDef]) -> list[VolumeTypeDef]:
        with calling("DescribeVolumes", self._region):
            pages = self._client.get_paginator("describe_volumes").paginate(Filters=filters)
            return [volume for page in pages for volume in page["Volumes"]]


def _market(spot: Spot) -> dict[str, Any]:
    """A one-time request ends with its instance, so nothing has to be cancelled or removed. A
    persistent one would start another when its instance ends (EC2 user guide, spot requests)."""
    options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
    if spot.max_price is not None:
        options["MaxPrice"] = spot.max_price
    return {"MarketType": "spot", "SpotOptions": options}


def _port(tags: Mapping[str, str]) -> int | None:
    said = tags.get(Tag.SSH_PORT, "")
    return int(said) if said.isdecimal() else None


def _having(key: str) -> list[FilterTypeDef]:
    return [{"Name": "tag-key", "Values": [key]}]


def _tags(tags: Sequence[TagTypeDef]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags}


def _filters(tags: Mapping[str, str]) -> list[FilterTypeDef]:
    return [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]


def _tagged(resource: Any, tags: Mapping[str, str]) -> TagSpecificationTypeDef:
    return {"ResourceType": resource, "Tags": tag_list(tags)}


def tag_list(tags: Mapping[str, str]) -> Sequence[Any]:
    """EC2's shape of tags: a list of Key and Value."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]
