"""Eventual consistency on order: the first reads after something was made do not show it.

What shall not be seen is taken out of moto's books while the read lasts, so it is missing from
lists and NotFound by its id, as on EC2 (User Guide, "Eventual consistency"). Every region's books
count for themselves, and only reads that would have shown the thing.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from amibuild.local.overlay.desk import Desk

# Puts the books without these back in order when it is called.
Undo = Callable[[], None]


@dataclass(frozen=True)
class Shelf:
    """One kind of thing: which calls show it, by which members they name it, where it stands."""

    reads: frozenset[str]
    names: tuple[str, ...]
    ids: Callable[[Any], set[str]]
    hide: Callable[[Any, set[str]], Undo]


@dataclass
class Reads:
    """How often each new thing shall still not be seen; one for each region's books."""

    known: dict[str, set[str]] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)


@contextmanager
def unseen(
    shelves: Mapping[str, Shelf], backend: Any, operation: str, params: dict[str, Any]
) -> Iterator[None]:
    """While it lasts, what shall not be seen yet by this operation is not in the books."""
    lags = Desk.current.faults.lags
    reads: Reads = backend.reads
    if not lags:
        # What was made meanwhile is nothing new when the next is ordered.
        reads.known.clear()
        reads.left.clear()
        yield
        return
    ordered = {kind: shelf for kind, shelf in shelves.items() if kind in lags}
    for kind, shelf in ordered.items():
        reads.known.setdefault(kind, shelf.ids(backend))
    undo = [
        shelf.hide(backend, hidden)
        for shelf in ordered.values()
        if operation in shelf.reads and (hidden := _hidden(shelf, backend, reads, params))
    ]
    try:
        yield
    finally:
        for put_back in undo:
            put_back()
        for kind, shelf in ordered.items():
            now = shelf.ids(backend)
            for new in now - reads.known[kind]:
                reads.left[new] = lags[kind]
            reads.known[kind] = now


def _hidden(shelf: Shelf, backend: Any, reads: Reads, params: dict[str, Any]) -> set[str]:
    hidden = {id_ for id_ in shelf.ids(backend) if reads.left.get(id_)}
    asked: set[str] = set()
    for name in shelf.names:
        value = params.get(name, [])
        asked |= set(value if isinstance(value, list) else [value])
    for id_ in hidden:
        if not asked or id_.partition("#")[0] in asked:
            reads.left[id_] -= 1
    return hidden


def _book(name: str) -> tuple[Callable[[Any], set[str]], Callable[[Any, set[str]], Undo]]:
    """A plain dictionary of the backend."""

    def ids(backend: Any) -> set[str]:
        return set(getattr(backend, name))

    def hide(backend: Any, hidden: set[str]) -> Undo:
        whole = getattr(backend, name)
        setattr(backend, name, {k: v for k, v in whole.items() if k not in hidden})
        return lambda: setattr(backend, name, whole)

    return ids, hide


def _instance_ids(backend: Any) -> set[str]:
    return {i.id for r in backend.reservations.values() for i in r.instances}


def _hide_instances(backend: Any, hidden: set[str]) -> Undo:
    whole = backend.reservations
    seen = {}
    for id_, reservation in whole.items():
        left = [i for i in reservation.instances if i.id not in hidden]
        if left:
            seen[id_] = copy.copy(reservation)
            seen[id_].instances = left
    backend.reservations = seen
    return lambda: setattr(backend, "reservations", whole)


def _group_ids(backend: Any) -> set[str]:
    return {id_ for groups in backend.groups.values() for id_ in groups}


def _hide_groups(backend: Any, hidden: set[str]) -> Undo:
    whole = backend.groups
    backend.groups = defaultdict(
        dict,
        {
            vpc: {id_: g for id_, g in groups.items() if id_ not in hidden}
            for vpc, groups in whole.items()
        },
    )
    return lambda: setattr(backend, "groups", whole)


def _versions(backend: Any) -> set[str]:
    """Of parameters: an overwritten one is seen with its older value."""
    return {f"{p.name}#{p.version}" for ps in backend._parameters.values() for p in ps}


def _hide_versions(backend: Any, hidden: set[str]) -> Undo:
    taken = {}
    for key, versions in list(backend._parameters.items()):
        seen = [p for p in versions if f"{p.name}#{p.version}" not in hidden]
        if len(seen) == len(versions):
            continue
        taken[key] = versions
        if seen:
            backend._parameters[key] = seen
        else:
            del backend._parameters[key]
    return lambda: backend._parameters.update(taken)


def _hide_invocations(backend: Any, hidden: set[str]) -> Undo:
    """The command is known, what becomes of it is not: InvocationDoesNotExist."""
    taken = {id_: backend.commands[id_].invocations for id_ in hidden}
    for id_ in hidden:
        backend.commands[id_].invocations = {}

    def undo() -> None:
        for id_, invocations in taken.items():
            backend.commands[id_].invocations = invocations

    return undo


def _reads(*names: str) -> frozenset[str]:
    return frozenset(names)


EC2_SHELVES = {
    "instance": Shelf(
        _reads(
            *("DescribeInstances", "DescribeInstanceStatus", "DescribeInstanceAttribute"),
            "GetConsoleOutput",
        ),
        ("InstanceId", "InstanceIds"),
        _instance_ids,
        _hide_instances,
    ),
    "image": Shelf(
        _reads("DescribeImages", "DescribeImageAttribute"),
        ("ImageId", "ImageIds"),
        *_book("amis"),
    ),
    "snapshot": Shelf(
        _reads("DescribeSnapshots", "DescribeSnapshotAttribute"),
        ("SnapshotId", "SnapshotIds"),
        *_book("snapshots"),
    ),
    "volume": Shelf(_reads("DescribeVolumes"), ("VolumeIds",), *_book("volumes")),
    "security-group": Shelf(
        _reads("DescribeSecurityGroups", "DescribeSecurityGroupRules"),
        ("GroupIds",),
        _group_ids,
        _hide_groups,
    ),
    "key-pair": Shelf(_reads("DescribeKeyPairs"), ("KeyNames",), *_book("key_pairs")),
}
SSM_SHELVES = {
    "parameter": Shelf(
        _reads(
            *("DescribeParameters", "GetParameter", "GetParameters", "GetParametersByPath"),
            "GetParameterHistory",
        ),
        ("Name", "Names"),
        _versions,
        _hide_versions,
    ),
    "command": Shelf(
        _reads("GetCommandInvocation", "ListCommandInvocations"),
        ("CommandId",),
        _book("commands")[0],
        _hide_invocations,
    ),
}
