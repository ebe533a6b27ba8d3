"""Attributes of images and snapshots: above all, who may use them.

Sources: EC2 API reference, ModifyImageAttribute (one attribute at a time; imdsSupport can't be
undone), DescribeImageAttribute, ModifySnapshotAttribute; User Guide, "Share an AMI" and "Deprecate
an AMI" (a public image has a deprecation date).
"""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.responses import EC2Response

from amibuild.local.overlay.ami import LocalAmi, check_usable, own_image
from amibuild.local.overlay.asked import check_account, check_choice
from amibuild.local.overlay.describing import iso_time
from amibuild.local.overlay.desk import Refusal
from amibuild.local.overlay.encryption import has_default_key
from amibuild.local.overlay.lifecycle import last_deprecation
from amibuild.local.overlay.snapshots import LocalSnapshot, own_snapshot
from amibuild.local.records import Permission

_LAUNCH, _VOLUME = "launchPermission", "createVolumePermission"
_MEMBERS = {
    "user": ("UserId", "UserIds"),
    "group": ("Group", "UserGroups"),
    "organization": ("OrganizationArn", "OrganizationArns"),
    "unit": ("OrganizationalUnitArn", "OrganizationalUnitArns"),
}
_IMAGE_VALUES = {
    "description": ("Description", lambda i: i.description),
    "kernel": ("KernelId", lambda i: i.kernel_id),
    "ramdisk": ("RamdiskId", lambda i: None),
    "sriovNetSupport": ("SriovNetSupport", lambda i: i.sriov_net_support),
    "bootMode": ("BootMode", lambda i: i.boot_mode),
    "tpmSupport": ("TpmSupport", lambda i: i.tpm_support),
    "uefiData": ("UefiData", lambda i: None),
    "lastLaunchedTime": ("LastLaunchedTime", lambda i: iso_time(i.last_launched)),
    "imdsSupport": ("ImdsSupport", lambda i: i.imds_support),
    "deregistrationProtection": ("DeregistrationProtection", lambda i: i.protection),
}


def _changes(params: dict[str, Any], member: str) -> tuple[list[Any], list[Any]]:
    """What is granted and what is taken away, as the structure or as OperationType says it."""
    structure = params.get(member, {})
    add, remove = list(structure.get("Add", [])), list(structure.get("Remove", []))
    lists = {"GroupNames": "Group"} | {many: one for one, many in _MEMBERS.values()}
    said = [{one: value} for many, one in lists.items() for value in params.get(many, [])]
    kind = params.get("OperationType")
    check_choice(kind, "OperationType", "add", "remove")
    if said and kind is None:
        raise Refusal("MissingParameter", "The request must contain the parameter OperationType")
    if kind is not None:
        (add if kind == "add" else remove).extend(said)
    return add, remove


def _permission(said: dict[str, str]) -> Permission:
    permission = Permission(**{field: said.get(key) for field, (key, _) in _MEMBERS.items()})
    if permission.user is not None:
        check_account(permission.user)
    if permission.group not in {None, "all"}:
        raise Refusal(
            "InvalidAMIAttributeItemValue",
            f'Invalid attribute item value "{permission.group}" for userGroup item type.',
        )
    return permission


class SharingResponses(EC2Response):
    params: dict[str, Any]

    def modify_image_attribute(self) -> EmptyResult:
        backend, params = self.ec2_backend, self.params
        image = own_image(backend, params["ImageId"])
        attribute = _attribute(params)
        if attribute == _LAUNCH:
            self._share_image(image)
        else:
            member = attribute[0].upper() + attribute[1:]
            value = params.get(member, {}).get("Value", params.get("Value", ""))
            check_usable(image)
            if attribute == "imdsSupport":
                check_choice(value, "imdsSupport", "v2.0")
            self.error_on_dryrun()
            if attribute == "imdsSupport":
                image.imds_support = value
            else:
                image.description = value
        backend.keep_image(image)
        return EmptyResult()

    def _share_image(self, image: LocalAmi) -> None:
        add, remove = (
            [_permission(one) for one in some] for some in _changes(self.params, "LaunchPermission")
        )
        check_usable(image)
        encrypted = any(s.encrypted for s in image.snapshots)
        public = any(p.group == "all" for p in add)
        if add and (has_default_key(self.ec2_backend, image.snapshots) or (public and encrypted)):
            raise Refusal(
                "InvalidParameter",
                "Snapshots encrypted with the AWS Managed CMK can't be shared. Specify another "
                "snapshot."
                if not public
                else "Images with encrypted snapshots can't be made public.",
            )
        self.error_on_dryrun()
        image.permissions = [p for p in image.permissions if p not in remove]
        image.permissions += [p for p in dict.fromkeys(add) if p not in image.permissions]
        if image.is_public:
            latest = last_deprecation(image)
            image.deprecation = min(image.deprecation or latest, latest)

    def reset_image_attribute(self) -> EmptyResult:
        image = own_image(self.ec2_backend, self.params["ImageId"])
        check_choice(self.params["Attribute"], "Attribute", _LAUNCH)
        check_usable(image)
        self.error_on_dryrun()
        image.permissions = []
        self.ec2_backend.keep_image(image)
        return EmptyResult()

    def describe_image_attribute(self) -> ActionResult:
        image = own_image(self.ec2_backend, self.params["ImageId"])
        attribute = self.params["Attribute"]
        answer: dict[str, Any] = {"ImageId": image.id}
        if attribute == "blockDeviceMapping":
            # Even owners get this (aws-cli, issue 1083).
            raise Refusal("AuthFailure", "Unauthorized attempt to access restricted resource")
        if attribute == _LAUNCH:
            answer["LaunchPermissions"] = [_said(p) for p in image.permissions]
        elif attribute == "productCodes":
            answer["ProductCodes"] = []
        else:
            check_choice(attribute, "attribute", *_IMAGE_VALUES)
            member, value = _IMAGE_VALUES[attribute]
            found = value(image)
            answer[member] = {} if found is None else {"Value": found}
        self.error_on_dryrun()
        return ActionResult(answer)

    def modify_snapshot_attribute(self) -> EmptyResult:
        backend, params = self.ec2_backend, self.params
        snapshot = own_snapshot(backend, params["SnapshotId"])
        check_choice(params.get("Attribute"), "Attribute", _VOLUME)
        add, remove = (
            [_account_or_all(_permission(one)) for one in some]
            for some in _changes(params, "CreateVolumePermission")
        )
        if not add and not remove:
            raise Refusal("InvalidParameterCombination", "No attributes specified.")
        _check_sharable(backend, snapshot, add)
        self.error_on_dryrun()
        kept = [who for who in snapshot.permissions if who not in remove]
        snapshot.permissions = list(dict.fromkeys([*kept, *add]))
        backend.keep_snapshot(snapshot)
        return EmptyResult()

    def reset_snapshot_attribute(self) -> EmptyResult:
        snapshot = own_snapshot(self.ec2_backend, self.params["SnapshotId"])
        check_choice(self.params["Attribute"], "Attribute", _VOLUME)
        self.error_on_dryrun()
        snapshot.permissions = []
        self.ec2_backend.keep_snapshot(snapshot)
        return EmptyResult()

    def describe_snapshot_attribute(self) -> ActionResult:
        snapshot = own_snapshot(self.ec2_backend, self.params["SnapshotId"])
        check_choice(self.params["Attribute"], "Attribute", _VOLUME, "productCodes")
        self.error_on_dryrun()
        who = [{"Group": w} if w == "all" else {"UserId": w} for w in snapshot.permissions]
        key = "ProductCodes" if self.params["Attribute"] == "productCodes" else ""
        answer = {key: []} if key else {"CreateVolumePermissions": who}
        return ActionResult({"SnapshotId": snapshot.id, **answer})


def _attribute(params: dict[str, Any]) -> str:
    """The one attribute that is to be modified."""
    named = params.get("Attribute")
    check_choice(named, "Attribute", "description", "imdsSupport", _LAUNCH)
    members = {"Description": "description", "ImdsSupport": "imdsSupport"}
    members["LaunchPermission"] = _LAUNCH
    found = {attribute for member, attribute in members.items() if member in params}
    if named is None and any(params.get(many) for _, many in _MEMBERS.values()):
        found.add(_LAUNCH)
    if named is not None:
        found.add(named)
    if len(found) != 1:
        raise Refusal(
            "InvalidParameterCombination",
            "Fields for multiple attribute types specified: " + ", ".join(sorted(found))
            if found
            else "No attributes specified.",
        )
    return str(found.pop())


def _said(permission: Permission) -> dict[str, str]:
    values = permission.model_dump(exclude_none=True)
    return {_MEMBERS[field][0]: value for field, value in values.items()}


def _account_or_all(permission: Permission) -> str:
    return permission.user or permission.group or ""


def _check_sharable(backend: Any, snapshot: LocalSnapshot, add: list[str]) -> None:
    """Source: packer, issue 7499: the code and words for the default key."""
    if add and has_default_key(backend, [snapshot]):
        raise Refusal(
            "OperationNotPermitted", "Encrypted snapshots with EBS default key cannot be shared"
        )
    if "all" in add and snapshot.encrypted:
        raise Refusal("OperationNotPermitted", "Encrypted snapshots cannot be made public")
