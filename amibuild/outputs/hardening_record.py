"""What the manifest says about hardening as a whole: figures that its checks recorded.

Their names are in provisioners/hardening: test_lynis.py, test_second_opinion.py, test_units.py and
test_hardening.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

INDEX = "lynis.index"
Environment = Literal["container", "virtual machine"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Lynis(_Record):
    """All tests of Lynis with its own profile."""

    index: int = Field(description="Its hardening index, 0 to 100")
    floor: int = Field(description="Below this the image would have failed")
    version: str = Field(description="Of Lynis")
    tests: int = Field(description="How many it ran")
    open: tuple[str, ...] = Field(
        default=(), description="Tests with a suggestion or warning that stays open"
    )
    lost_to_host_kernel: tuple[str, ...] = Field(
        default=(), description="Those of `open` that a container can't pass: they ask the kernel"
    )


class OpenScap(_Record):
    """Debian's own content for it, on the fresh boot."""

    profile: str
    version: str = Field(description="Of the scanner")
    content: str = Field(description="Version of the package ssg-debian")
    results: dict[str, int] = Field(description="Rules by how they ended: pass, fail, ...")
    open: tuple[str, ...] = Field(default=(), description="The rules that failed")


class Judged(_Record):
    """A machine that Lynis judged, and how."""

    environment: Environment = Field(description="A container's kernel is its host's")
    machine: str = Field(description="What systemd-detect-virt calls it")
    lynis: Lynis


class HardeningRecord(_Record):
    """Where the image was judged, and how."""

    environment: Environment | None = Field(
        default=None,
        description="Of `lynis`: the fresh boot's, or where that was not judged the builder's",
    )
    machine: str | None = Field(default=None, description="What systemd-detect-virt calls it")
    lynis: Lynis | None = Field(default=None, description="null where it was not run")
    builder: Judged | None = Field(
        default=None, description="The builder, where the fresh boot was judged as well"
    )
    secure_boot: str | None = Field(
        default=None, description="On the fresh boot: on, off, no UEFI; null where it has no own"
    )
    exposure: dict[str, float] = Field(
        default={}, description="By `systemd-analyze security`, of each service that is started"
    )
    openscap: OpenScap | None = Field(
        default=None, description="Where params.hardening.second_opinion asks for it"
    )


def hardening_record(booted: Mapping[str, Any], built: Mapping[str, Any]) -> HardeningRecord | None:
    """What the checks of one step recorded on the fresh boot and on the builder.

    None when nothing of it is about hardening as a whole.
    """
    on_boot, on_builder = _judged(booted), _judged(built)
    told = on_boot or on_builder
    record = HardeningRecord(
        environment=told and told.environment,
        machine=told and told.machine,
        lynis=told and told.lynis,
        builder=on_builder if on_boot else None,
        secure_boot=booted.get("secure_boot"),
        exposure=_exposure(booted),
        openscap=_openscap(booted),
    )
    return None if record == HardeningRecord() else record


def _judged(measures: Mapping[str, Any]) -> Judged | None:
    if INDEX not in measures:
        return None
    return Judged(
        environment=measures["lynis.environment"],
        machine=measures["lynis.machine"],
        lynis=Lynis(
            index=measures[INDEX],
            floor=measures["lynis.floor"],
            version=measures["lynis.version"],
            tests=measures["lynis.tests"],
            open=measures["lynis.open"].split(),
            lost_to_host_kernel=measures["lynis.lost"].split(),
        ),
    )


def _exposure(measures: Mapping[str, Any]) -> dict[str, float]:
    """Of all units. A service's own step has a measure of that name too: one figure."""
    told = measures.get("exposure")
    if not isinstance(told, str):
        return {}
    return {unit: float(figure) for unit, figure in _pairs(told)}


def _openscap(measures: Mapping[str, Any]) -> OpenScap | None:
    if "openscap.results" not in measures:
        return None
    return OpenScap(
        profile=measures["openscap.profile"],
        version=measures["openscap.version"],
        content=measures["openscap.content"],
        results={how: int(count) for how, count in _pairs(measures["openscap.results"])},
        open=measures["openscap.open"].split(),
    )


def _pairs(text: str) -> list[tuple[str, str]]:
    """Of `name=figure name=figure`: a measure is one value."""
    return [(name, figure) for name, _, figure in (pair.rpartition("=") for pair in text.split())]
