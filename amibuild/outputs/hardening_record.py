"""What the manifest says about hardening as a whole: figures that its checks recorded.

Their names are in provisioners/hardening/test_lynis.py and test_hardening.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

INDEX = "lynis.index"


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


class HardeningRecord(_Record):
    """Where the image was judged, and how."""

    environment: Literal["container", "virtual machine"] = Field(
        description="A container's kernel is its host's: there the builder was judged"
    )
    machine: str = Field(description="What systemd-detect-virt calls it")
    lynis: Lynis
    secure_boot: str | None = Field(
        default=None, description="On the fresh boot: on, off, no UEFI; null where it has no own"
    )


def hardening_record(measures: Mapping[str, Any]) -> HardeningRecord | None:
    """`measures` are what the checks of one step recorded; None when none was Lynis'."""
    if INDEX not in measures:
        return None
    return HardeningRecord(
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
        secure_boot=measures.get("secure_boot"),
    )
