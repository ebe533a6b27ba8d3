"""The words by which an ordered failure may pick a call: its values, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from moto.ec2.models import ec2_backends

from amibuild.local.gateway import Call
from amibuild.local.overlay.desk import ACCOUNT, Desk


def words_of(call: Call) -> frozenset[str]:
    """Every value of the request. A subnet adds its zone, a launch template what is in it."""
    if call.json:
        try:
            words = set(_values(json.loads(call.body or b"{}")))
        except ValueError:
            words = set()
    else:
        words = {value for _, value in parse_qsl(call.body.decode(errors="replace"))}
    if call.service == "ec2":
        words |= _implied(call.region, words)
    return frozenset(words)


def _values(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        for value in found.values():
            yield from _values(value)
    elif isinstance(found, list):
        for value in found:
            yield from _values(value)
    elif found is not None:
        yield str(found)


def _implied(region: str, words: set[str]) -> set[str]:
    with Desk.current.lock:
        backend = ec2_backends[ACCOUNT][region]
        more = set()
        for template in backend.launch_templates.values():
            if {template.id, template.name} & words:
                more |= {value for v in template.versions for value in _values(v.data)}
        subnets = (s for zone in backend.subnets.values() for s in zone.values())
        more |= {s.availability_zone for s in subnets if s.id in words | more}
        return more
