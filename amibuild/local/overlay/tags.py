"""Tags: within EC2's limits, on what is there; those of images and snapshots outlive the process.

Sources: EC2 user guide, "Tag restrictions" (50 tags, keys of 128 and values of 256 characters,
`aws:` is reserved, keys are unique); API reference, "Error codes": TagLimitExceeded.
"""

from __future__ import annotations

from typing import Any

from moto.ec2.models import EC2Backend

from amibuild.local.overlay.desk import Refusal

LIMIT = 50
KEY_LIMIT = 128
VALUE_LIMIT = 256
RESERVED = "aws:"
# What each call makes, and so may tag (API reference, TagSpecifications of each).
TAGGABLE = {
    "RunInstances": {
        *("instance", "volume", "network-interface"),
        *("spot-instances-request", "elastic-gpu"),
    },
    "CopyImage": {"image", "snapshot"},
    "CopySnapshot": {"snapshot"},
    "CreateImage": {"image", "snapshot"},
    "CreateKeyPair": {"key-pair"},
    "CreateLaunchTemplate": {"launch-template"},
    "CreateNetworkInterface": {"network-interface"},
    "CreateSecurityGroup": {"security-group"},
    "CreateSnapshot": {"snapshot"},
    "CreateSnapshots": {"snapshot"},
    "CreateVolume": {"volume"},
    "ImportKeyPair": {"key-pair"},
    "RegisterImage": {"image"},
}


def check_specifications(operation: str, params: dict[str, Any]) -> None:
    """Raises: Refusal for tags on what the call does not make, or for what no tag may be."""
    for member in ("TagSpecifications", "TagSpecification"):
        for specification in params.get(member, []):
            kind = specification.get("ResourceType", "")
            if operation in TAGGABLE and kind not in TAGGABLE[operation]:
                raise Refusal(
                    "InvalidParameterValue",
                    f"'{kind}' is not a valid taggable resource type for this operation.",
                )
            check_tags(specification.get("Tags", []))


def check_tags(tags: list[dict[str, str]]) -> None:
    keys = [tag.get("Key", "") for tag in tags]
    for key, value in ((tag.get("Key", ""), tag.get("Value", "")) for tag in tags):
        if not key:
            raise _wrong("Tag key cannot be null or empty")
        if len(key) > KEY_LIMIT:
            raise _wrong(f"Tag key exceeds the maximum length of {KEY_LIMIT} characters")
        if len(value) > VALUE_LIMIT:
            raise _wrong(f"Tag value exceeds the maximum length of {VALUE_LIMIT} characters")
        if key.lower().startswith(RESERVED):
            raise _wrong(f"Tag keys starting with '{RESERVED}' are reserved for internal use")
        if keys.count(key) > 1:
            raise _wrong(f"Duplicate tag key '{key}' specified.")
    if len(tags) > LIMIT:
        raise _too_many()


def _wrong(message: str) -> Refusal:
    return Refusal("InvalidParameterValue", message)


def _too_many() -> Refusal:
    return Refusal(
        "TagLimitExceeded", "The maximum number of Tags for a resource has been reached."
    )


class TagBooks(EC2Backend):
    def create_tags(self, resource_ids: list[str], tags: dict[str, str]) -> bool:
        super().create_tags(resource_ids, tags)
        self._keep_tags(resource_ids)
        return True

    def delete_tags(self, resource_ids: list[str], tags: dict[str, str]) -> bool:
        super().delete_tags(resource_ids, tags)
        self._keep_tags(resource_ids)
        return True

    def do_resources_exist(self, resource_ids: list[str]) -> bool:
        """moto looks up an instance and never asks whether it found one."""
        for id_ in resource_ids:
            if id_.startswith("i-") and self.get_instance_by_id(id_) is None:
                raise Refusal(
                    "InvalidInstanceID.NotFound", f"The instance ID '{id_}' does not exist"
                )
        return bool(super().do_resources_exist(resource_ids))

    def _keep_tags(self, resource_ids: list[str]) -> None:
        for id_ in resource_ids:
            if id_ in self.amis:
                self.keep_image(self.amis[id_])
            if id_ in self.snapshots:
                self.keep_snapshot(self.snapshots[id_])

    def _tags_of(self, id_: str) -> dict[str, str]:
        return dict(self.tags.get(id_, {}))
