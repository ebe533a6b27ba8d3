"""Which operations the endpoint has. Every other one is refused by its name.

moto answers many operations that it only pretends to do: it says that a fleet was started, a host
allocated, an instance bundled. Where such an answer could be about what we hold (images, snapshots,
volumes, instances, parameters, commands), we have our own operation or none. What moto keeps as
well as EC2 does, as far as a client can tell, is listed here by hand.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from moto.core.utils import camelcase_to_underscores, get_service_model

# Services whose books touch none of our resources. The others start or change instances behind
# our back: Auto Scaling, Batch, CloudFormation, EBS direct, ECS, EMR, Resource Groups Tagging, …
SERVICES = frozenset(
    {
        *("ec2", "ssm", "s3", "sts", "iam", "secretsmanager", "kms"),
        *("logs", "monitoring", "events", "sns", "sqs", "dynamodb", "route53"),
    }
)

_NETWORKS = """
AssociateDhcpOptions AssociateRouteTable AssociateSubnetCidrBlock AssociateVpcCidrBlock
AttachInternetGateway CreateDefaultSubnet CreateDefaultVpc CreateDhcpOptions
CreateEgressOnlyInternetGateway CreateInternetGateway CreateNatGateway CreateNetworkAcl
CreateNetworkAclEntry CreateNetworkInterface CreateRoute CreateRouteTable CreateSubnet
CreateSubnetCidrReservation CreateVpc CreateVpcEndpoint DeleteDhcpOptions
DeleteEgressOnlyInternetGateway DeleteInternetGateway DeleteNetworkAcl DeleteNetworkAclEntry
DeleteNetworkInterface DeleteRoute DeleteRouteTable DeleteSubnet DeleteSubnetCidrReservation
DeleteVpc DeleteVpcEndpoints DescribeDhcpOptions DescribeEgressOnlyInternetGateways
DescribeInternetGateways DescribeManagedPrefixLists DescribeNatGateways DescribeNetworkAcls
DescribeNetworkInterfaceAttribute DescribeNetworkInterfaces DescribePrefixLists DescribeRouteTables
DescribeSubnets DescribeVpcAttribute DescribeVpcClassicLink DescribeVpcClassicLinkDnsSupport
DescribeVpcEndpointServices DescribeVpcEndpoints DescribeVpcs DetachInternetGateway
DisassociateRouteTable DisassociateSubnetCidrBlock DisassociateVpcCidrBlock
GetManagedPrefixListEntries GetSubnetCidrReservations ModifyNetworkInterfaceAttribute
ModifySubnetAttribute ModifyVpcAttribute ModifyVpcEndpoint ReplaceNetworkAclEntry ReplaceRoute
ReplaceRouteTableAssociation
"""
# An address can be had, for a NAT gateway; a machine cannot be reached at it.
_ADDRESSES = "AllocateAddress DescribeAddresses DescribeAddressesAttribute ReleaseAddress"
_GROUPS_AND_KEYS = """
DeleteKeyPair DeleteSecurityGroup DescribeKeyPairs DescribeSecurityGroupRules DescribeSecurityGroups
RevokeSecurityGroupEgress RevokeSecurityGroupIngress UpdateSecurityGroupRuleDescriptionsEgress
UpdateSecurityGroupRuleDescriptionsIngress
"""
_TAGS = "CreateTags DeleteTags DescribeTags"
_TEMPLATES = """
CreateLaunchTemplate DeleteLaunchTemplate DescribeLaunchTemplateVersions DescribeLaunchTemplates
ModifyLaunchTemplate
"""
_CATALOGUES = """
DescribeAccountAttributes DescribeAvailabilityZones DescribeRegions
"""
_INSTANCES = """
AssociateIamInstanceProfile DescribeIamInstanceProfileAssociations
DescribeInstanceCreditSpecifications DisassociateIamInstanceProfile
ReplaceIamInstanceProfileAssociation
"""
# Their books are ours (overlay/volumes.py), only the answer is moto's.
_DISKS = """
DeleteVolume DescribeVolumes DescribeVolumesModifications DisableEbsEncryptionByDefault
EnableEbsEncryptionByDefault GetEbsEncryptionByDefault
"""
_PARAMETERS = """
AddTagsToResource DeleteParameter DeleteParameters GetParameter
GetParameterHistory GetParameters GetParametersByPath LabelParameterVersion ListTagsForResource
RemoveTagsFromResource UnlabelParameterVersion
"""
KEPT = {
    "ec2": frozenset(
        " ".join(
            (
                *(_NETWORKS, _ADDRESSES, _GROUPS_AND_KEYS, _TAGS),
                *(_TEMPLATES, _CATALOGUES, _INSTANCES, _DISKS),
            )
        ).split()
    ),
    "ssm": frozenset(_PARAMETERS.split()),
}


# Where faults are of use: a bake and its machines call nothing else.
_FAULTY = ("ec2", "ssm", "s3", "sts", "iam", "secretsmanager")


# moto answers these with the key of AWS's own examples, which must not open anything.
_CONSTANT_KEYS = frozenset({"GetFederationToken", "GetSessionToken"})


@cache
def genuine(service: str) -> frozenset[str]:
    """The operations that AWS has, by botocore's model of the service."""
    return frozenset(get_service_model(service).operation_names)


@cache
def own(service: str) -> frozenset[str]:
    """The operations that the overlay's classes answer themselves."""
    from amibuild.local.overlay.takeover import LocalEc2Response, LocalSsmResponse

    response: Any = {"ec2": LocalEc2Response, "ssm": LocalSsmResponse}[service]
    methods = {
        name
        for cls in response.__mro__
        if cls.__module__.startswith("amibuild.")
        for name in vars(cls)
    }
    return frozenset(o for o in genuine(service) if camelcase_to_underscores(o) in methods)


def supported(service: str) -> frozenset[str]:
    return KEPT[service] | own(service)


def judge(service: str, operation: str) -> tuple[str, str] | None:
    """Why a call is refused before it reaches moto: code and message; None when it may go on.

    Sources: EC2 API reference, "Error codes": UnsupportedOperation, InvalidAction; a service that
    speaks JSON has UnknownOperationException instead (AWS JSON protocol).
    """
    if service not in SERVICES:
        return (
            "UnsupportedOperation",
            f"{operation} of {service}: the local endpoint has no such service",
        )
    if service == "sts" and operation in _CONSTANT_KEYS:
        return "UnsupportedOperation", f"{operation}: the local endpoint does not have it"
    if service not in KEPT or operation in supported(service):
        return None
    if operation in genuine(service):
        return "UnsupportedOperation", f"{operation}: the local endpoint does not have it"
    code = "InvalidAction" if service == "ec2" else "UnknownOperationException"
    return code, f"The action {operation} is not valid for this web service."


def every_name() -> frozenset[str]:
    """What a fault may be ordered for."""
    return frozenset().union(*(genuine(service) for service in _FAULTY))
