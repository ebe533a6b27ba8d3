"""What becomes of an image: deregistered, disabled, deprecated, protected.

Sources: EC2 API reference, DeregisterImage (a snapshot of several images stays), DisableImage,
EnableImageDeprecation (not in the past, at most 10 years ahead, seconds rounded to the minute),
EnableImageDeregistrationProtection; User Guide, "Protect an AMI from deregistration" (24 hours of
cooldown after it is turned off) and "Disable an AMI".
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models import EC2Backend
from moto.ec2.responses import EC2Response

from amibuild.local.overlay.ami import LocalAmi, check_usable, own_image
from amibuild.local.overlay.desk import Desk, Refusal
from amibuild.local.overlay.snapshots import LocalSnapshot

COOLDOWN = timedelta(hours=24)
COOLING = "enabled-with-cooldown"


class LifecycleBooks(EC2Backend):
    def deregister_image(self, ami_id: str) -> None:
        image = own_image(self, ami_id)
        super().deregister_image(ami_id)
        self.tags.pop(ami_id, None)
        # One whose record can't be read, too. One that is pending has none yet.
        Desk.current.store.delete_image(ami_id)
        if image.kept:
            self.forget_elsewhere(ami_id)


def _check_unprotected(image: LocalAmi) -> None:
    """Source: the User Guide says that it can't be; the code is that of termination protection."""
    until = image.protected_until
    if image.protection != "disabled" or (until is not None and datetime.now(UTC) < until):
        when = f" until {until:%Y-%m-%dT%H:%M:%SZ}" if image.protection == "disabled" else ""
        raise Refusal(
            "OperationNotPermitted",
            f"The image '{image.id}' may not be deregistered{when}: it has deregistration "
            "protection. Turn it off and try again.",
        )


def _delete_snapshot(backend: Any, snapshot: LocalSnapshot) -> dict[str, str]:
    try:
        backend.delete_snapshot(snapshot.id)
    except Refusal as error:
        code = "skipped" if error.code == "InvalidSnapshot.InUse" else "client-error"
        return {"SnapshotId": snapshot.id, "ReturnCode": code}
    return {"SnapshotId": snapshot.id, "ReturnCode": "success"}


class LifecycleResponses(EC2Response):
    params: dict[str, Any]

    def deregister_image(self) -> ActionResult:
        backend = self.ec2_backend
        image = self._own()
        _check_unprotected(image)
        self.error_on_dryrun()
        backend.deregister_image(image.id)
        results = []
        if self.params.get("DeleteAssociatedSnapshots", False):
            results = [_delete_snapshot(backend, snapshot) for snapshot in image.snapshots]
        return ActionResult({"Return": True, "DeleteSnapshotResults": results})

    def disable_image(self) -> ActionResult:
        image = self._own()
        if image.state != "disabled":
            check_usable(image)
        self.error_on_dryrun()
        image.state, image.permissions = "disabled", []
        return self._kept(image)

    def enable_image(self) -> ActionResult:
        image = self._own()
        if image.state != "disabled":
            check_usable(image)
        self.error_on_dryrun()
        image.state = "available"
        return self._kept(image)

    def enable_image_deprecation(self) -> ActionResult:
        image = self._own()
        moment = _whole_minute(self.params["DeprecateAt"].replace(tzinfo=UTC))
        now = datetime.now(UTC)
        if moment < now - timedelta(minutes=1):
            raise Refusal("InvalidParameterValue", f"DeprecateAt must not be in the past: {moment}")
        latest = last_deprecation(image) if image.is_public else _years_after(now, 10)
        if moment > latest:
            raise Refusal(
                "InvalidParameterValue", f"DeprecateAt must not be after {latest:%Y-%m-%d}"
            )
        self.error_on_dryrun()
        image.deprecation = moment
        return self._kept(image)

    def disable_image_deprecation(self) -> ActionResult:
        image = self._own()
        self.error_on_dryrun()
        image.deprecation = None
        return self._kept(image)

    def enable_image_deregistration_protection(self) -> ActionResult:
        image = self._own()
        self.error_on_dryrun()
        image.protection = (
            COOLING if self.params.get("WithCooldown") else "enabled-without-cooldown"
        )
        image.protected_until = None
        self.ec2_backend.keep_image(image)
        return ActionResult({"Return": image.protection})

    def disable_image_deregistration_protection(self) -> ActionResult:
        image = self._own()
        self.error_on_dryrun()
        if image.protection == COOLING:
            image.protected_until = datetime.now(UTC) + COOLDOWN
        image.protection = "disabled"
        self.ec2_backend.keep_image(image)
        return ActionResult({"Return": image.protection})

    def _own(self) -> LocalAmi:
        return own_image(self.ec2_backend, self.params["ImageId"])

    def _kept(self, image: LocalAmi) -> ActionResult:
        self.ec2_backend.keep_image(image)
        return ActionResult({"Return": True})


def last_deprecation(image: LocalAmi) -> datetime:
    """A public image is deprecated two years after it was made, at the latest."""
    return _years_after(image.creation_date, 2)


def _years_after(moment: datetime, years: int) -> datetime:
    try:
        return moment.replace(year=moment.year + years)
    except ValueError:  # the 29th of February
        return moment.replace(year=moment.year + years, day=28)


def _whole_minute(moment: datetime) -> datetime:
    return (moment + timedelta(seconds=30)).replace(second=0, microsecond=0)
