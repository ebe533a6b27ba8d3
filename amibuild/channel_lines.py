"""The lines of a journal that tell of channels, and of images that were taken back or went."""

from __future__ import annotations

from typing import Literal

from amibuild.line import Line


class Moving(Line):
    """A channel's parameter is about to get this image, in place of `previous`."""

    event: Literal["moving"] = "moving"
    verb: str
    channel: str
    parameter: str
    region: str
    image: str
    previous: str | None
    by: str
    reason: str


class Moved(Line):
    """It has it: read back, as that version of the parameter."""

    event: Literal["moved"] = "moved"
    channel: str
    parameter: str
    region: str
    image: str
    previous: str | None
    version: int


class Revoking(Line):
    """An image is about to be disabled and deprecated."""

    event: Literal["revoking"] = "revoking"
    image: str
    name: str
    region: str
    by: str
    reason: str


class Pruning(Line):
    """An image that nothing uses is about to be removed, with its snapshots."""

    event: Literal["pruning"] = "pruning"
    image: str
    name: str
    region: str
    snapshots: tuple[str, ...]
    why: str
