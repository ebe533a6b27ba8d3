"""CopyImage and CopySnapshot: from any region into this one, sharing every block in the store.

Sources: EC2 API reference, CopyImage (ClientToken; CopyImageTags leaves out `aws:` tags, and of
another account's all but `ec2:SharedTag/`), CopySnapshot; quotas: 20 copies at
a time into a region.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.responses import EC2Response
from moto.ec2.utils import random_ami_id, random_snapshot_id

from amibuild.errors import AmibuildError
from amibuild.local.overlay import launching
from amibuild.local.overlay.ami import LocalAmi, check_usable, known_image
from amibuild.local.overlay.asked import check_new_name, refuse_parameters
from amibuild.local.overlay.desk import Desk, Refusal
from amibuild.local.overlay.encryption import chosen_key, key_arn
from amibuild.local.overlay.loading import REGIONS
from amibuild.local.overlay.snapshots import (
    LocalSnapshot,
    Source,
    check_completed,
    known_snapshot,
    tag_list,
)
from amibuild.local.store import SnapshotRecord

log = logging.getLogger(__name__)

AT_ONCE = 20
SHARED_TAG = "ec2:SharedTag/"
# "Snapshot copies have an arbitrary source volume ID" (CopySnapshot).
NO_VOLUME = "vol-ffffffff"
_ELSEWHERE = (
    "DestinationOutpostArn",
    "DestinationAvailabilityZone",
    "DestinationAvailabilityZoneId",
)


@dataclass(frozen=True)
class Copy:
    """A snapshot in the making, and the one in the store that it is of."""

    source: SnapshotRecord
    snapshot: LocalSnapshot


class CopyBooks(EC2Backend):
    def begin_copy(
        self, source: LocalSnapshot, key: str | None, description: str, tags: dict[str, str]
    ) -> Copy:
        assert source.record is not None
        snapshot = self.add_snapshot(
            Source(NO_VOLUME, source.volume_size, key), description, random_snapshot_id()
        )
        snapshot.is_copy = True
        snapshot.add_tags(tags)
        return Copy(source.record, snapshot)

    def copy_blocks(self, copies: list[Copy], image: LocalAmi | None) -> None:
        """The copies one after the other, then their image. In a thread."""
        desk = Desk.current
        try:
            desk.before_capture()
            desk.go_on()
            for copy in copies:
                key = copy.snapshot.kms_key_id
                arn = key_arn(self, key) if key is not None else None
                with desk.lock:
                    self._complete_copy(copy, arn)
            if image is not None:
                with desk.lock:
                    self.complete_image(image)
        except (AmibuildError, OSError) as error:
            log.warning("%s: %s", image.id if image else copies[0].snapshot.id, error)
            with desk.lock:
                if image is not None:
                    self.fail_image(image, str(error))
                for copy in copies:
                    if copy.snapshot.status == "pending":
                        copy.snapshot.fail(str(error))

    def _complete_copy(self, copy: Copy, key: str | None) -> None:
        snapshot = copy.snapshot
        snapshot.kms_key_id = key
        record = copy.source.model_copy(
            update={
                "id": snapshot.id,
                "description": snapshot.description,
                "started": snapshot.start_time,
                "owner": snapshot.owner_id,
                "tags": {},
                "region": self.region_name,
                "volume_id": snapshot.volume_id,
                "encrypted": key is not None,
                "kms_key": key,
                "permissions": (),
            }
        )
        made = Desk.current.store.copy_snapshot(copy.source.id, record)
        self.complete_snapshot(snapshot, made)


def _source_backend(backend: Any, region: str) -> Any:
    partition = next((names for names in REGIONS.values() if backend.region_name in names), [])
    if region not in partition:
        raise Refusal("InvalidParameterValue", f"Invalid value '{region}' for SourceRegion.")
    return ec2_backends[backend.account_id][region]


def _check_room(backend: Any) -> None:
    """Source: EBS quotas; ResourceLimitExceeded is what CopySnapshot has been seen to answer."""
    going = [s for s in backend.snapshots.values() if s.is_copy and s.status == "pending"]
    if len(going) >= AT_ONCE:
        raise Refusal(
            "ResourceLimitExceeded",
            f"Too many snapshot copies in progress. The limit is {AT_ONCE} for this destination "
            "region.",
        )


def _copied_tags(source: Any, image: LocalAmi) -> dict[str, str]:
    own = image.owner_id == source.account_id
    tags: dict[str, str] = source.tags.get(image.id, {})
    return {
        key: value
        for key, value in tags.items()
        if not key.startswith("aws:") and (own or key.startswith(SHARED_TAG))
    }


def _copied_before(backend: Any, token: str | None, asked: str) -> LocalAmi | None:
    """What this client token made, here or before the last restart."""
    made: LocalAmi | None = next(
        (image for image in backend.amis.values() if token and image.token == token), None
    )
    if made is not None and made.asked != asked:
        raise launching.mismatch()
    return made


class CopyResponses(EC2Response):
    params: dict[str, Any]

    def copy_image(self) -> ActionResult:
        backend, params = self.ec2_backend, self.params
        token, asked = params.get("ClientToken"), launching.fingerprint(params)
        made = _copied_before(backend, token, asked)
        if made is not None:
            return ActionResult({"ImageId": made.id})
        refuse_parameters(params, *_ELSEWHERE, "SnapshotCopyCompletionDurationMinutes")
        tags = self._parse_tag_specification()
        origin = _source_backend(backend, params["SourceRegion"])
        source = known_image(origin, params["SourceImageId"])
        check_usable(source)
        check_new_name(backend, params["Name"])
        key = chosen_key(backend, params, source.snapshots)
        _check_room(backend)
        self.error_on_dryrun()
        image, copies = _begin(backend, source, params, key, tags.get("snapshot", {}))
        image.token, image.asked = token, asked
        backend.amis[image.id] = image
        if params.get("CopyImageTags"):
            image.add_tags(_copied_tags(origin, source))
        image.add_tags(tags.get("image", {}))
        Desk.current.spawn(backend.copy_blocks, copies, image)
        return ActionResult({"ImageId": image.id})

    def copy_snapshot(self) -> ActionResult:
        """DestinationRegion and PresignedUrl are botocore's own doing: the region is this one."""
        backend, params = self.ec2_backend, self.params
        refuse_parameters(params, *_ELSEWHERE, "CompletionDurationMinutes")
        tags = self._parse_tag_specification().get("snapshot", {})
        origin = _source_backend(backend, params["SourceRegion"])
        source = known_snapshot(origin, params["SourceSnapshotId"])
        check_completed(source)
        key = chosen_key(backend, params, [source])
        _check_room(backend)
        self.error_on_dryrun()
        copy = backend.begin_copy(source, key, params.get("Description", ""), tags)
        Desk.current.spawn(backend.copy_blocks, [copy], None)
        id_ = copy.snapshot.id
        return ActionResult({"SnapshotId": id_, "Tags": tag_list(backend, id_)})


def _begin(
    backend: Any,
    source: LocalAmi,
    params: dict[str, Any],
    key: str | None,
    snapshot_tags: dict[str, str],
) -> tuple[LocalAmi, list[Copy]]:
    image_id, copies, devices = random_ami_id(), [], []
    for device in source.devices:
        copied = None
        if device.snapshot is not None:
            said = (
                f"Copied for DestinationAmi {image_id} from SourceAmi {source.id} for "
                f"SourceSnapshot {device.snapshot.id}."
            )
            copies.append(backend.begin_copy(device.snapshot, key, said, snapshot_tags))
            copied = copies[-1].snapshot
        devices.append(replace(device, snapshot=copied))
    image = LocalAmi(
        backend,
        image_id=image_id,
        name=params["Name"],
        description=params.get("Description", ""),
        owner_id=backend.account_id,
        created=datetime.now(UTC),
        devices=devices,
        architecture=source.architecture,
        boot_mode=source.boot_mode,
        ena=source.ena_support,
        imds_support=source.imds_support,
        sriov=source.sriov_net_support,
        tpm=source.tpm_support,
        virtualization=source.virtualization_type,
        source_image=source.id,
        source_region=params["SourceRegion"],
    )
    return image, copies
