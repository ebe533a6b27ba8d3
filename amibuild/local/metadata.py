"""The instance metadata service, as a machine sees it at 169.254.169.254.

Sources: EC2 User Guide, "Instance metadata categories" and "Use the Instance Metadata Service";
the token's rules are those of "How IMDSv2 works": PUT, 1 to 21,600 s, never through a proxy.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

from amibuild.local.keys import ROLE_KEYS
from amibuild.local.machines.base import MetadataHandler, MetadataRequest, MetadataResponse

LONGEST_TOKEN_S = 21_600
CREDENTIALS_LAST = timedelta(hours=6)
_VERSION = re.compile(r"latest|1\.0|20\d\d-\d\d-\d\d")
# A leaf is text; a folder lists its names, folders with a slash behind.
Tree = Mapping[str, "str | Tree"]


@dataclass(frozen=True)
class Identity:
    """What the service tells about one instance. `tags` is None unless the launch allowed them."""

    instance_id: str
    image_id: str
    instance_type: str
    region: str
    zone: str
    zone_id: str
    account_id: str
    hostname: str
    private_ip: str
    public_ip: str | None
    mac: str
    launched: datetime
    architecture: str
    security_groups: tuple[str, ...]
    launch_index: int = 0
    reservation_id: str = ""
    key: tuple[str, str] | None = None
    user_data: bytes | None = None
    tags: Mapping[str, str] | None = None
    profile_arn: str | None = None
    profile_id: str = ""
    role: str | None = None
    enabled: bool = True
    token_required: bool = True
    spot: bool = False
    taken_back_at: datetime | None = None


def metadata_handler(look: Callable[[], Identity]) -> MetadataHandler:
    """Answers one machine's requests; `look` gives its identity as it is at that moment."""
    return _Service(look).answer


@dataclass
class _Service:
    look: Callable[[], Identity]
    tokens: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: MetadataRequest) -> MetadataResponse:
        who = self.look()
        if not who.enabled:
            return _refused(403)
        path = unquote(request.path.partition("?")[0]).strip("/")
        if path == "latest/api/token":
            return self._token(request)
        if request.method not in {"GET", "HEAD"}:
            return _refused(405)
        token = request.headers.get("x-aws-ec2-metadata-token")
        if (token is None and who.token_required) or (token is not None and not self._good(token)):
            return _refused(401)
        version, _, rest = path.partition("/")
        if not path:
            return MetadataResponse(200, b"1.0\nlatest")
        if not _VERSION.fullmatch(version):
            return _refused(404)
        return _found(who, rest)

    def _token(self, request: MetadataRequest) -> MetadataResponse:
        if request.method != "PUT":
            return _refused(405)
        if "x-forwarded-for" in request.headers:
            return _refused(403)
        ttl = request.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if not ttl.isdecimal() or not 1 <= int(ttl) <= LONGEST_TOKEN_S:
            return _refused(400)
        token = secrets.token_urlsafe(40)
        now = time.monotonic()
        with self.lock:
            self.tokens = {t: end for t, end in self.tokens.items() if end > now}
            self.tokens[token] = now + int(ttl)
        header = ("X-aws-ec2-metadata-token-ttl-seconds", ttl)
        return MetadataResponse(200, token.encode(), headers=(header,))

    def _good(self, token: str) -> bool:
        with self.lock:
            return self.tokens.get(token, 0.0) > time.monotonic()


def _refused(status: int) -> MetadataResponse:
    return MetadataResponse(status)


def _found(who: Identity, path: str) -> MetadataResponse:
    if path == "user-data":
        if who.user_data is None:
            return _refused(404)
        return MetadataResponse(200, who.user_data, "application/octet-stream")
    if path.strip("/") == "meta-data/public-keys" and who.key is not None:
        return MetadataResponse(200, f"0={who.key[0]}".encode())
    here: str | Tree = _tree(who)
    for name in filter(None, path.split("/")):
        if isinstance(here, str) or name not in here:
            return _refused(404)
        here = here[name]
    if isinstance(here, str):
        return MetadataResponse(200, here.encode())
    return MetadataResponse(200, "\n".join(_names(here)).encode())


def _names(folder: Tree) -> list[str]:
    return [name if isinstance(v, str) else f"{name}/" for name, v in sorted(folder.items())]


def _tree(who: Identity) -> Tree:
    data: dict[str, str | Tree] = {
        "ami-id": who.image_id,
        "ami-launch-index": str(who.launch_index),
        "ami-manifest-path": "(unknown)",
        "block-device-mapping": {"ami": "xvda", "root": "/dev/xvda"},
        "hostname": who.hostname,
        "instance-action": "none",
        "instance-id": who.instance_id,
        "instance-life-cycle": "spot" if who.spot else "on-demand",
        "instance-type": who.instance_type,
        "local-hostname": who.hostname,
        "local-ipv4": who.private_ip,
        "mac": who.mac,
        "placement": {
            "availability-zone": who.zone,
            "availability-zone-id": who.zone_id,
            "region": who.region,
        },
        "reservation-id": who.reservation_id,
        "security-groups": "\n".join(who.security_groups),
        "services": {"domain": "amazonaws.com", "partition": "aws"},
    }
    if who.public_ip:
        data["public-ipv4"] = who.public_ip
    if who.key is not None:
        _, text = who.key
        data["public-keys"] = {"0": {"openssh-key": text.strip() + "\n"}}
    if who.tags is not None:
        data["tags"] = {"instance": dict(who.tags)}
    if who.profile_arn is not None:
        data["iam"] = _iam(who)
    if who.taken_back_at is not None:
        notice = {"action": "terminate", "time": _moment(who.taken_back_at)}
        data["spot"] = {
            "instance-action": json.dumps(notice),
            "termination-time": _moment(who.taken_back_at),
        }
    tree: dict[str, str | Tree] = {
        "meta-data": data,
        "dynamic": {"instance-identity": {"document": _document(who)}},
    }
    if who.user_data is not None:
        tree["user-data"] = ""  # listed here; answered as bytes
    return tree


def _iam(who: Identity) -> Tree:
    now = datetime.now(UTC)
    info = {
        "Code": "Success",
        "LastUpdated": _moment(now),
        "InstanceProfileArn": who.profile_arn,
        "InstanceProfileId": who.profile_id,
    }
    tree: dict[str, str | Tree] = {"info": json.dumps(info, indent=1)}
    if who.role is not None:
        key = ROLE_KEYS.of(who.instance_id, who.role)
        credentials = {
            "Code": "Success",
            "LastUpdated": _moment(now),
            "Type": "AWS-HMAC",
            "AccessKeyId": key.id,
            "SecretAccessKey": key.secret,
            "Token": f"local-{key.id}",
            "Expiration": _moment(now + CREDENTIALS_LAST),
        }
        tree["security-credentials"] = {who.role: json.dumps(credentials, indent=1)}
    return tree


def _document(who: Identity) -> str:
    return json.dumps(
        {
            "accountId": who.account_id,
            "architecture": who.architecture,
            "availabilityZone": who.zone,
            "billingProducts": None,
            "devpayProductCodes": None,
            "marketplaceProductCodes": None,
            "imageId": who.image_id,
            "instanceId": who.instance_id,
            "instanceType": who.instance_type,
            "kernelId": None,
            "pendingTime": _moment(who.launched),
            "privateIp": who.private_ip,
            "ramdiskId": None,
            "region": who.region,
            "version": "2017-09-30",
        },
        indent=1,
    )


def _moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
