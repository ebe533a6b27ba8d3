"""Values that are looked for on a disk by a machine that must not learn them.

A command's text is kept by AWS, and so is what travels in it. So no value does: what comes is its
length, four bytes from its middle to look for, and an HMAC of all of it under a key that is made
for one look. A value of 16 characters or more can't be guessed from that.
Shape: {"key": base64, "values": [{"name", "length", "anchor", "at", "mac"}, ...]}, where `at` is
how far into the value its anchor is. Made by amibuild/verify/known.py.
"""

import hmac
import json
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Fingerprint:
    name: str
    length: int
    anchor: bytes
    at: int
    mac: bytes


class Fingerprints:
    def __init__(self, text: str) -> None:
        told = json.loads(text)
        self._key = b64decode(told["key"])
        values = [
            Fingerprint(
                one["name"],
                one["length"],
                b64decode(one["anchor"]),
                one["at"],
                b64decode(one["mac"]),
            )
            for one in told["values"]
        ]
        anchors = {value.anchor for value in values}
        self.by_anchor = {a: [v for v in values if v.anchor == a] for a in sorted(anchors)}

    def found(self, data: bytes, at: int, anchor: bytes) -> Iterator[tuple[str, int]]:
        """Name and begin of each value that is there whole, its anchor being at `at`."""
        for value in self.by_anchor[anchor]:
            begin = at - value.at
            candidate = data[begin : begin + value.length] if begin >= 0 else b""
            mac = hmac.digest(self._key, candidate, "sha256")
            if len(candidate) == value.length and hmac.compare_digest(mac, value.mac):
                yield value.name, begin
