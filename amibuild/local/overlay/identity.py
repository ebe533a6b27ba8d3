"""What an instance's metadata service tells, read from the books at each request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amibuild.local.metadata import Identity
from amibuild.local.overlay.desk import Desk


def identity_of(
    backend: Any, instance: Any, hostname: str, public_key: str | None
) -> Callable[[], Identity]:
    def look() -> Identity:
        with Desk.current.lock:
            options, nic = instance.metadata_options, instance.nics[0]
            tags = {t["key"]: t["value"] for t in instance.get_tags()}
            arn, profile_id, role = _profile(backend, instance)
            zone = backend.get_zone_by_name(instance.availability_zone)
            return Identity(
                instance_id=instance.id,
                image_id=instance.image_id,
                instance_type=instance.instance_type,
                region=backend.region_name,
                zone=instance.availability_zone,
                zone_id=zone.zone_id if zone else "",
                account_id=backend.account_id,
                hostname=hostname,
                private_ip=nic.private_ip_address,
                public_ip=nic.public_ip,
                mac=nic.mac_address,
                launched=instance.launch_time,
                architecture=instance.architecture,
                security_groups=tuple(sorted(g.name for g in nic.group_set)),
                launch_index=instance.ami_launch_index,
                reservation_id=instance.reservation_id,
                key=(instance.key_name, public_key) if public_key else None,
                user_data=instance.raw_user_data,
                tags=tags if options.instance_metadata_tags == "enabled" else None,
                profile_arn=arn,
                profile_id=profile_id,
                role=role,
                enabled=options.http_endpoint == "enabled",
                token_required=options.http_tokens == "required",
                spot=instance.lifecycle == "spot",
                taken_back_at=getattr(instance, "taken_back_at", None),
            )

    return look


def _profile(backend: Any, instance: Any) -> tuple[str | None, str, str | None]:
    """ARN, id and role of the instance's profile, as it is attached now."""
    association = backend.iam_instance_profile_associations.get(instance.id)
    if association is None:
        return None, "", None
    profile = association.iam_instance_profile
    role = profile.roles[0].name if profile.roles else None
    return profile.arn, profile.id, role
