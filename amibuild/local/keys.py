"""The access keys that open the endpoint: its user's own, and those of the instances' roles.

Whoever may log in to this host reaches its port, and so does any web page that is visited on it,
and any program in a machine. A key's id is as random as its secret here, so that knowing it is the
proof: signatures are not worked out again.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path

from amibuild.errors import HostError
from amibuild.local.durable import on_disk
from amibuild.local.folder import alone, write_private

FILE = "access-key.json"
LEAST_SECRET = 32
_ID = re.compile(r"[A-Z0-9]{20}")


@dataclass(frozen=True)
class AccessKey:
    """As IAM's own: 20 letters and digits, 40 characters."""

    id: str = field(repr=False)
    secret: str = field(repr=False)


def new_key(prefix: str = "AKIA") -> AccessKey:
    """IAM User Guide, "Unique identifiers": AKIA for a user's key, ASIA for a temporary one."""
    return AccessKey(
        prefix + base64.b32encode(secrets.token_bytes(10)).decode(), secrets.token_urlsafe(30)
    )


def own_key(local: Path) -> AccessKey:
    """The key of this data folder, made at first: an environment outlives its endpoint.

    Only the user may read its file. One that holds no key any longer is replaced.
    Raises: HostError when the folder can't be written; StoreFull.
    """
    file = local / FILE
    try:
        with on_disk(local):
            local.mkdir(parents=True, exist_ok=True, mode=0o700)
            with alone(local):
                found = _kept(file)
                if found is None:
                    found = new_key()
                    write_private(file, json.dumps(asdict(found)) + "\n")
                return found
    except OSError as error:
        raise HostError(f"{file}: {error.strerror}") from error


def _kept(file: Path) -> AccessKey | None:
    try:
        said = json.loads(file.read_text())
        key = AccessKey(said["id"], said["secret"])
        whole = _ID.fullmatch(key.id) and len(key.secret) >= LEAST_SECRET
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    file.chmod(0o600)
    return key if whole else None


class RoleKeys:
    """What IMDS gives out, by instance and role: one for as long as the endpoint lives."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], AccessKey] = {}
        self._lock = threading.Lock()

    def of(self, instance_id: str, role: str) -> AccessKey:
        with self._lock:
            return self._made.setdefault((instance_id, role), new_key("ASIA"))

    def know(self, key_id: str) -> bool:
        with self._lock:
            return any(key.id == key_id for key in self._made.values())


# As moto's books are: one endpoint a process.
ROLE_KEYS = RoleKeys()


def is_known(key_id: str, own: AccessKey) -> bool:
    """Whether this endpoint has given out that key: itself, by IMDS, by STS or by IAM."""
    from moto.iam.models import iam_backends

    if not key_id:
        return False
    if key_id == own.id or ROLE_KEYS.know(key_id):
        return True
    books = [book for account in list(iam_backends.values()) for book in list(account.values())]
    found = next((b.access_keys[key_id] for b in books if key_id in b.access_keys), None)
    return found is not None and found.status == "Active"
