"""Values that the bake knew and the image must not: their fingerprints, for the look at its disk.

The machine that looks learns none of them. What it is sent travels in a command, whose text AWS
keeps, so of each value that is its length, four bytes from its middle and an HMAC under a key that
is made for this look alone. What reads it is provisioners/seal/fingerprints.py.
"""

from __future__ import annotations

import hmac
import json
import secrets
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlsplit

from amibuild.aws.session import Cloud
from amibuild.library.step import StepFile
from amibuild.secret import LEAST_LENGTH, Secret

# Of what blocks.py has before it at a chunk's edge.
LONGEST = 16 * 1024
ANCHOR = 4
KNOWN_FILE = "known.json"


@dataclass
class KnownValues:
    """Collects them while the bake goes on. `add` once for each, by a name that may be shown."""

    _values: dict[str, str] = field(default_factory=dict, repr=False)
    has_secrets: bool = False
    """Whether somebody chose one of them: then even its fingerprint is not for everybody."""

    def add(self, name: str, value: str) -> None:
        """Raises: ValueError for a value that is too short or too long to be looked for."""
        if not LEAST_LENGTH <= len(value.encode()) <= LONGEST:
            raise ValueError(f"{name}: a value of {len(value)} characters can't be looked for")
        self._values[value] = name

    def add_secret(self, secret: Secret) -> None:
        """In each way that it may have been written."""
        self.has_secrets = True
        for written in secret.written():
            self.add(f"the secret {secret.name}", written)

    def add_those_of(self, cloud: Cloud) -> None:
        """What this process signs its calls with now, and the addresses that it has signed.

        A role's keys are others after an hour: so it is asked when a bake begins, and at its end.
        A key that is shorter than any of AWS is somebody's for a test, and is left out.
        """
        for name, value in cloud.secrets().items():
            self._add_as_written(name, value)
        for url in cloud.s3.presigned:
            address = urlsplit(url)
            for key, value in parse_qsl(address.query):
                if "signature" in key.lower():
                    self.add(f"the signature of the address of {address.path}", value)
                elif "token" in key.lower():
                    self._add_as_written(f"the token of the address of {address.path}", value)

    def _add_as_written(self, name: str, value: str) -> None:
        """In an address a token stands percent-encoded."""
        for written, how in ((value, ""), (quote(value, safe=""), ", percent-encoded")):
            if len(value) >= LEAST_LENGTH and written not in self._values:
                self.add(name + how, written)

    def fingerprints(self) -> StepFile:
        """The file that travels. Another one at each call, since its key is."""
        return fingerprint_file(self._values)


def fingerprint_file(values: Mapping[str, str], key: bytes | None = None) -> StepFile:
    """`values` maps a value to its name."""
    key = secrets.token_bytes(32) if key is None else key
    told = {"key": _text(key), "values": list(_told(values.items(), key))}
    return StepFile(KNOWN_FILE, json.dumps(told).encode())


def _told(values: Iterable[tuple[str, str]], key: bytes) -> Iterable[dict[str, object]]:
    for value, name in values:
        whole = value.encode()
        at = len(whole) // 2 - ANCHOR // 2
        yield {
            "name": name,
            "length": len(whole),
            "anchor": _text(whole[at : at + ANCHOR]),
            "at": at,
            "mac": _text(hmac.digest(key, whole, "sha256")),
        }


def _text(value: bytes) -> str:
    return b64encode(value).decode()
