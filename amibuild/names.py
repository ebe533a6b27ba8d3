"""Ids with types of their own, and how the names of things are built.

Every temporary name carries the bake id, so that two bakes never meet and `reap` can tell whose a
resource is.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NewType

AmiId = NewType("AmiId", str)
BakeId = NewType("BakeId", str)
InstanceId = NewType("InstanceId", str)
Region = NewType("Region", str)
SnapshotId = NewType("SnapshotId", str)

# EC2 allows 3 to 128 of these in an AMI name (CreateImage, parameter Name); the version needs 16.
IMAGE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,99}")
VERSION = re.compile(r"(?P<date>\d{4}\.\d{2}\.\d{2})\.(?P<counter>\d+)")
BAKE_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
EXPIRY = "%Y-%m-%dT%H:%M:%SZ"
# Ends the name of a check that ran before the image was captured.
ON_BUILDER = " on the builder"


class Tag:
    """The tags that amibuild sets. All of them go into the creating call, VERIFIED and REVOKED
    aside."""

    IMAGE = "amibuild:image"
    VERSION = "amibuild:version"
    DIGEST = "amibuild:digest"
    BAKE_ID = "amibuild:bake-id"
    SOURCE_AMI = "amibuild:source-ami"
    COMMIT = "amibuild:commit"
    EXPIRES = "amibuild:expires"
    PURPOSE = "amibuild:purpose"
    TOKEN = "amibuild:token"
    VERIFIED = "amibuild:verified"
    REVOKED = "amibuild:revoked"
    CHANNEL = "amibuild:channel"
    # Set by who forwards another port to port 22 of the instance.
    SSH_PORT = "amibuild:ssh-port"


def new_bake_id(now: datetime | None = None) -> BakeId:
    """`20261122-101500-a1b2c3`: sorts by time, short enough to type, unlikely to meet another."""
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    return BakeId(f"{moment:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}")


def began_at(bake_id: str) -> datetime:
    """When a bake with that id began. Raises: ValueError for what `new_bake_id` can't have made."""
    if not BAKE_ID.fullmatch(bake_id):
        raise ValueError(f"{bake_id!r} is no bake's id")
    return datetime.strptime(bake_id[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)


def expiry(began: datetime, lease: timedelta) -> str:
    """The value of the tag EXPIRES, such as `2026-11-22T16:15:00Z`: free for `reap` after that."""
    return (began + lease).astimezone(UTC).strftime(EXPIRY)


def parse_expiry(value: str) -> datetime:
    """The end that `expiry` wrote. Raises: ValueError for what it can't have written."""
    return datetime.strptime(value, EXPIRY).replace(tzinfo=UTC)


def client_token(bake_id: BakeId, purpose: str) -> str:
    """The ClientToken of one creation: same bake and purpose, same token; at most 64 characters."""
    return f"{bake_id}-{purpose}"[:64]


def purpose_of(token: str) -> str:
    """What the token of a creation was for, such as `build-0`."""
    return token.split("-", 3)[-1]


def temporary_name(bake_id: BakeId, purpose: str) -> str:
    """The name of a temporary resource, such as `amibuild-20261122-101500-a1b2c3-access`."""
    return f"amibuild-{bake_id}-{purpose}"


def ami_name(image: str, version: str) -> str:
    return f"{image}-{version}"


def channel_parameter(pattern: str, image: str, channel: str) -> str:
    """The name of a channel's parameter, by `[channels] parameter` of the recipe."""
    return pattern.format(image=image, channel=channel)


def next_version(taken: list[str], today: datetime) -> str:
    """The UTC date and a counter: one more than the highest of that day in `taken`."""
    date = f"{today.astimezone(UTC):%Y.%m.%d}"
    counters = [
        int(m["counter"])
        for m in map(VERSION.fullmatch, taken)
        if m is not None and m["date"] == date
    ]
    return f"{date}.{max(counters, default=0) + 1}"


@dataclass(frozen=True)
class Partition:
    """The part of AWS that a region is in: the second word of every ARN there, such as `aws-cn`.

    `suffix` ends the names of its hosts, and with some services also of their principals.
    """

    name: str
    suffix: str


@dataclass(frozen=True)
class EndpointAccess:
    """Where an EC2-like API listens and how to sign for it, when it is not AWS itself.

    `place` tells those apart that say they have the same account.
    """

    url: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    place: str = field(default="", kw_only=True)

    def is_gone(self) -> bool:
        """True once it is known that it will never answer again: no use in trying."""
        return False
