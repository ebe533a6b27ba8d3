"""What every line of a journal has: see amibuild/journal.py."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class Line(BaseModel):
    """`at` is its first field: a line behind a damaged one is found by that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
