"""The smallest service, what it compiles to, and its unit line by line."""

from __future__ import annotations

from typing import Any

from amibuild.library.compile import compile_service
from amibuild.library.service import Service, ServiceFile
from amibuild.library.unit import unit_text

SMALLEST: dict[str, Any] = {
    "purpose": "A server.",
    "command": ("/usr/bin/server",),
    "ports": ({"name": "game", "port": 7777, "protocol": "udp"},),
    "memory_mib": 64,
}


def service(**fields: Any) -> Service:
    return Service("game", ServiceFile.model_validate({**SMALLEST, **fields}))


def lines(key: str, **fields: Any) -> list[str]:
    """The values of a setting in the unit."""
    unit = unit_text(service(**fields)).splitlines()
    return [value for name, _, value in (line.partition("=") for line in unit) if name == key]


def brought(path: str, **fields: Any) -> str:
    """The text of a file that the service brings to an image called `host`."""
    files = compile_service(service(**fields), "host").files
    (found,) = [f.content.decode() for f in files if f.path == path]
    return found
