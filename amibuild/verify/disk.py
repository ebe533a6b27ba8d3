"""Looks at the finished disk itself: a second volume that nothing has booted from.

A boot could hide, or bring back, what must not be in an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from amibuild.aws.images import Image
from amibuild.aws.session import Cloud
from amibuild.communicator.base import Communicator, RemoteJob, check, handed_back
from amibuild.errors import InUse, NotFound, ResourceFailed
from amibuild.files import write_atomically
from amibuild.journal import ResourceKind
from amibuild.library.load import SEAL
from amibuild.library.step import BuildStep, StepFile
from amibuild.names import BakeId, Tag, temporary_name
from amibuild.scope import Scope
from amibuild.verify.known import KnownValues
from amibuild.verify.report import CheckResult, Outcome
from amibuild.wait import Look, Observer, until

VOLUME_S = 600
VISIBLE_S = 60
# Every block is read: a new volume loads from its snapshot meanwhile, and an emulated machine looks
# for each of a dozen words in 400 MB/s.
HYGIENE_S, HYGIENE_S_PER_GIB = 600, 60
# SendCommand takes no more.
LONGEST_COMMAND_S = 172_800
DEVICE = "/dev/sdf"
FINISHED_DISK = "finished-disk"
KNOWN_PUBLIC = "known_public"


class Finding(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    path: str
    detail: str


class HygieneReport(BaseModel):
    """What hygiene.py found on the finished disk. `waived` is what the recipe calls public."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    passed: tuple[str, ...]
    failed: tuple[Finding, ...]
    waived: tuple[Finding, ...] = ()


def as_checks(report: HygieneReport) -> tuple[CheckResult, ...]:
    """For a report that knows only checks: one of each rule, or of each finding against it.

    What the recipe waives was not held against the image, and is told as skipped.
    """

    def id_of(name: str) -> str:
        return f"{FINISHED_DISK}/hygiene.py::{name}"

    passed = [
        CheckResult(id_of(rule), FINISHED_DISK, Outcome.PASSED, 0.0) for rule in report.passed
    ]
    failed = [
        CheckResult(id_of(f"{f.rule}: {f.path}"), FINISHED_DISK, Outcome.FAILED, 0.0, f.detail)
        for f in report.failed
    ]
    waived = [
        CheckResult(
            id_of(f"{w.rule}: {w.path}"),
            FINISHED_DISK,
            Outcome.SKIPPED,
            0.0,
            f"{w.detail}; public by params.{SEAL}.{KNOWN_PUBLIC}",
        )
        for w in report.waived
    ]
    return (*passed, *failed, *waived)


def make_disk_copy(
    cloud: Cloud,
    scope: Scope,
    bake_id: BakeId,
    image: Image,
    zone: str,
    kms_key: str | None,
    tags: Mapping[str, str],
) -> str:
    """A volume from the image's root snapshot, in the machine's zone, owned by the scope.

    It is free to go once the machine has terminated, which the scope's end begins first.
    """
    name = temporary_name(bake_id, "disk")

    def create(token: str) -> str:
        marked = {**tags, Tag.TOKEN: token, "Name": name}
        return cloud.ec2.create_volume(image.root_snapshot, zone, kms_key, marked, token)

    return scope.own(ResourceKind.VOLUME, "disk", name, create)


def attach_disk_copy(cloud: Cloud, volume_id: str, instance_id: str, observer: Observer) -> None:
    _wait_for_volume(cloud, volume_id, "available", observer)

    def look() -> Look[bool]:
        try:
            cloud.ec2.attach_volume(volume_id, instance_id, DEVICE)
        except NotFound:  # it was seen, but not everywhere yet
            return Look("not visible yet")
        except InUse as error:
            # Nobody else knows this volume: our own call attached it, and its answer was lost.
            if error.code != "VolumeInUse":
                raise
        return Look("attached", True)

    until(look, what=volume_id, timeout_s=VISIBLE_S, observer=observer)
    _wait_for_volume(cloud, volume_id, "in-use", observer)


def hygiene_limit_s(size_gib: int) -> int:
    return min(HYGIENE_S + HYGIENE_S_PER_GIB * size_gib, LONGEST_COMMAND_S)


def known_public(steps: Sequence[BuildStep]) -> tuple[str, ...]:
    """What the recipe says in params.seal.known_public; nothing for a seal that has no such."""
    return tuple(
        path
        for step in steps
        if step.name == SEAL
        for path in step.facts.get("parameters", {}).get(KNOWN_PUBLIC, ())
    )


@contextmanager
def hygiene_started(
    communicator: Communicator,
    volume_id: str,
    size_gib: int,
    rules: Sequence[StepFile],
    known: KnownValues,
    public: Sequence[str],
    log: Path,
    observer: Observer,
) -> Iterator[Callable[[], HygieneReport]]:
    """Starts the look at the disk; what it yields waits for its end.

    `known` are the values that are looked for in every block, of which fingerprints travel: closed
    where somebody has chosen one. `public` are the image's files and folders whose private keys
    everybody has.
    """
    script = files("amibuild.verify").joinpath("hygiene.sh").read_text()
    environment = {"VOLUME_ID": volume_id, "KNOWN_PUBLIC": "\n".join(public)}
    limit_s = hygiene_limit_s(size_gib)
    told = (known.fingerprints(),)
    open_, closed = ((), told) if known.has_secrets else (told, ())
    job = RemoteJob("hygiene", script, limit_s, (*rules, *open_), environment, closed=closed)
    with communicator.started(job, observer) as end:

        def report() -> HygieneReport:
            result = end(observer)
            write_atomically(log, result.log)
            what = "the look at the finished disk"
            return handed_back(what, check(what, result), HygieneReport)

        yield report


def _wait_for_volume(cloud: Cloud, volume_id: str, wanted: str, observer: Observer) -> None:
    def look() -> Look[bool]:
        try:
            state = cloud.ec2.volume_state(volume_id)
        except NotFound:  # the first reads after CreateVolume may miss it
            return Look("not visible yet")
        if state in {"error", "deleting", "deleted"}:
            raise ResourceFailed(what=volume_id, state=state)
        return Look(state, True if state == wanted else None)

    until(look, what=volume_id, timeout_s=VOLUME_S, observer=observer)
