"""A removal that failed: its line in the journal, and what is told of it."""

from __future__ import annotations

from amibuild.errors import Leftover, LeftoverError
from amibuild.journal import LeftBehind, ResourceKind


def leftover(event: LeftBehind) -> Leftover:
    return Leftover(event.kind, event.id, event.region, event.reason, event.command)


def left_behind(
    error: Exception, kind: ResourceKind, id_: str, region: str, command: str
) -> list[LeftBehind]:
    """What a failed removal of `id_` has left: that, or what the error names instead."""
    if not isinstance(error, LeftoverError):
        reason = str(error)
        return [LeftBehind(kind=kind, id=id_, region=region, reason=reason, command=command)]
    return [
        LeftBehind(
            kind=ResourceKind(one.kind),
            id=one.id,
            region=one.region,
            reason=one.reason,
            command=one.command,
        )
        for one in error.leftovers
    ]
