"""Writes down what a bake did: the manifest, and from manifests alone the runbook and tfvars."""

from __future__ import annotations

import logging
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from amibuild import __version__, proc
from amibuild.aws.images import Image
from amibuild.errors import (
    AmibuildError,
    CommandFailed,
    HostError,
    Interrupted,
    PlanError,
    Problem,
    RecipeError,
)
from amibuild.files import write_atomically
from amibuild.library.step import StepKind
from amibuild.names import BakeId
from amibuild.outputs import manifest as m
from amibuild.outputs import runbook, terraform
from amibuild.outputs.hardening_record import hardening_record
from amibuild.outputs.service_record import service_record
from amibuild.plan import Plan
from amibuild.project import Project
from amibuild.secret import all_masked
from amibuild.steps.provision import Inventory, StepRun
from amibuild.verify.boot import Proof

log = logging.getLogger(__name__)

RUNBOOK = "RUNBOOK.md"
TRIAL = ".amibuild-trial-"


@dataclass(frozen=True)
class Made:
    """All that a bake knows at its end."""

    plan: Plan
    bake_id: BakeId
    began: datetime
    target: str
    region: str
    commit: str
    image: Image
    version: str
    runs: tuple[StepRun, ...]
    inventory: Inventory
    proof: Proof
    seconds_total: float
    seconds_by_step: dict[str, float]


@dataclass(frozen=True)
class Written:
    manifest: Path
    runbook: Path
    tfvars: Path
    manifest_text: str


def check_writable(project: Project) -> None:
    """Before anything costs: whether the papers can be written at the end.

    Raises: PlanError when RUNBOOK.md's markers are broken; HostError when a folder is closed.
    """
    book = project.directory / RUNBOOK
    try:
        runbook.merge(book.read_text() if book.exists() else None, "")
    except UnicodeDecodeError as error:
        raise PlanError(f"{book} is no text: {error}") from error
    for folder in (
        project.state_dir / "manifests",
        book.resolve().parent,
        project.directory / project.recipe.terraform.directory,
    ):
        _try_to_write(folder)


def _try_to_write(folder: Path) -> None:
    """Permissions alone don't tell: root may write to /proc, and nothing can be made there.

    A folder that is not there is not made yet: a bake that ends before its papers leaves none.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise HostError(f"{there} is not a folder")
    try:
        if there == folder:
            tempfile.NamedTemporaryFile(dir=there, prefix=TRIAL).close()
        else:
            Path(tempfile.mkdtemp(dir=there, prefix=TRIAL)).rmdir()
    except OSError as error:
        raise HostError(f"{there} can't be written to: {error.strerror}") from error


@contextmanager
def papers_of(image_id: str) -> Iterator[None]:
    """Around what is done for an image that is proven: a failure says that the image stays."""
    stays = f"{image_id} is proven and stays"
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise HostError(
            f"{stays}, but its papers could not be written: {where}{error.strerror}",
            hint="once that is mended, `amibuild bake --if-changed` hands it to Terraform",
        ) from error
    except (AmibuildError, Interrupted) as error:
        error.add_note(f"{stays}; its papers are not all written")
        raise


def is_of(path: Path, image_id: str) -> bool:
    """Whether this is the manifest of that image. Two targets may give out the same name."""
    return path.exists() and image_id in path.read_text(errors="replace")


def manifest_of(state_dir: Path, name: str, image_id: str) -> m.Manifest | None:
    """The image's own, also where another target's image of that name has taken its place.

    Raises: RecipeError when what may be it can't be read.
    """
    folder = state_dir / "manifests"
    newest = folder / f"{name}.json"
    candidates = [newest] if newest.exists() else []
    for path in (*candidates, *sorted(folder.glob("*-before-*.json"))):
        if path == newest or is_of(path, image_id):
            manifest = _read(path)
            if manifest.image.id == image_id:
                return manifest
    return None


def _read(path: Path) -> m.Manifest:
    """Raises: RecipeError."""
    try:
        return m.from_json(path.read_text(), path)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError([Problem(path, None, "", f"can't be read: {error}")]) from error


def record(project: Project, made: Made) -> Written:
    """Writes all files; the manifest first, since the others only repeat it."""
    manifest = m.Manifest.model_validate(all_masked(_manifest(project, made).model_dump()))
    path = project.state_dir / "manifests" / f"{made.image.name}.json"
    text = m.to_json(manifest)
    if path.exists() and not is_of(path, made.image.id):
        # Another target gave out the same name: both stay in the history.
        path.rename(path.with_name(f"{path.stem}-before-{made.image.id}.json"))
    write_atomically(path, text)
    book = project.directory / RUNBOOK
    known = [manifest, *_earlier(path, made.plan.image)]
    existing = book.read_text() if book.exists() else None
    write_atomically(book, runbook.merge(existing, runbook.render(known)))
    image = manifest.image
    pinned = terraform.Pinned(
        image.id, image.name, image.version, manifest.digest, image.region, image.image
    )
    return Written(path, book, hand_over(project, pinned), text)


def hand_over(project: Project, image: terraform.Pinned) -> Path:
    """Terraform's files for an image, new or used again; the one with its id."""
    return write_pinned(project, image, terraform.services_of_steps(project.steps))


def write_pinned(
    project: Project, image: terraform.Pinned, services: Mapping[str, Mapping[str, Any]]
) -> Path:
    folder = project.directory / project.recipe.terraform.directory
    channels = project.recipe.channels
    write_atomically(folder / terraform.VARIABLES, terraform.variables())
    write_atomically(folder / terraform.TFVARS, terraform.tfvars(image, services, channels))
    return folder / terraform.TFVARS


def _earlier(newest: Path, image: str) -> list[m.Manifest]:
    """The manifests of earlier bakes of this image; one that can't be read is told and left out."""
    found = []
    for path in sorted(newest.parent.glob("*.json")):
        if path == newest:
            continue
        try:
            manifest = _read(path)
        except RecipeError as error:
            log.warning("left out of the runbook's history: %s", error)
            continue
        if manifest.image.image == image:
            found.append(manifest)
    return found


def last_manifest(
    state_dir: Path, image: str, target: str, *, before: m.Manifest | None = None
) -> m.Manifest | None:
    """Of the newest proven image of that name and target that this folder knows of; with `before`
    of the newest that is older than that one. One that can't be read is passed over."""
    found = []
    for path in (state_dir / "manifests").glob("*.json"):
        try:
            manifest = _read(path)
        except RecipeError as error:
            log.warning("not compared with: %s", error)
            continue
        same = manifest.image.image == image and manifest.bake.target == target
        older = before is None or manifest.bake.ended < before.bake.ended
        if same and older and manifest.verified:
            found.append(manifest)
    return next(iter(m.newest_first(found)), None)


@contextmanager
def _readable_measures() -> Iterator[None]:
    """Checks record them, on the machine, and one of a recipe's own may record anything."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CommandFailed(
            what="the checks",
            exit_code=None,
            reason=f"what they measured can't be read: {type(error).__name__}: {error}",
            hint="rename what a check of yours records; the report is in the log of the checks",
        ) from error


def _manifest(project: Project, made: Made) -> m.Manifest:
    seal = made.runs[-1].step.name
    measures = made.proof.report.measures()
    on_builder = made.proof.report.measures(on_builder=True)
    with _readable_measures():
        judged = [
            hardening_record(measures.get(name, {}), on_builder.get(name, {}))
            for name in dict.fromkeys((*measures, *on_builder))
        ]
        services = {
            run.step.name: service_record(
                run.step.facts, measures.get(run.step.name, {}), run.installed_bytes
            )
            for run in made.runs
            if run.step.kind is StepKind.SERVICE
        }
    return m.build_manifest(
        image=m.Image(
            id=made.image.id,
            name=made.image.name,
            image=made.plan.image,
            version=made.version,
            region=made.region,
            size_gib=made.image.size_gib,
            architecture=made.image.architecture,
            snapshot_ids=made.image.snapshots,
        ),
        digest=made.plan.digest,
        bake=m.Bake(
            id=made.bake_id,
            started=made.began,
            ended=datetime.now(UTC),
            target=made.target,
            user=proc.user(),
            host=socket.gethostname(),
            amibuild_version=__version__,
        ),
        recipe=m.RecipeSource(
            name=made.plan.image, path=project.path.name, commit=made.commit or None
        ),
        source=m.Source(
            ami_id=made.plan.source.id,
            name=made.plan.source.name,
            owner=made.plan.source.owner,
            reference=made.plan.source.reference,
            boot=made.inventory.boot,
        ),
        steps=[
            m.step_record(
                run.step,
                exit_code=run.exit_code,
                seconds=run.seconds,
                log=str(run.log.relative_to(project.directory)),
                kind=m.Kind.SEAL if run.step.name == seal else None,
                notes=run.notes,
            )
            for run in made.runs
        ],
        packages=made.inventory.packages,
        platform_packages=made.inventory.platform_packages,
        services=services,
        units_enabled=made.inventory.units_enabled,
        users=made.inventory.users,
        hygiene=m.Hygiene(
            passed=made.proof.hygiene.passed,
            waived=tuple(
                m.Waived(rule=w.rule, path=w.path, detail=w.detail)
                for w in made.proof.hygiene.waived
            ),
        ),
        checks=[
            m.Check(name=c.id, outcome=c.outcome, seconds=c.seconds, message=c.message)
            for c in made.proof.report.checks
        ],
        boot=made.proof.report.boot,
        hardening=next(filter(None, judged), None),
        seconds=m.Seconds(total=made.seconds_total, steps=made.seconds_by_step),
        sizes={"root_used_bytes": made.inventory.root_used_bytes},
    )
