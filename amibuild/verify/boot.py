"""Proves an image: a fresh machine is started from it, and its checks run there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from importlib.resources import files
from pathlib import Path

from amibuild import __version__
from amibuild.aws.ec2 import Network
from amibuild.aws.images import Image
from amibuild.aws.removal import CloudRemover
from amibuild.aws.session import Cloud
from amibuild.bake_keys import forget_keys, keys_file
from amibuild.channels import find
from amibuild.communicator.base import Communicator, Discreet, RemoteJob
from amibuild.errors import StepFailed, UsageError, VerifyFailed
from amibuild.journal import BakeStarted, Journal, Noted, Subscriber, journal_path
from amibuild.lease import Lease
from amibuild.library.bootstrap import lease_user_data
from amibuild.library.load import hygiene_rules
from amibuild.library.step import BuildStep, StepFile
from amibuild.names import ON_BUILDER, BakeId, Tag, new_bake_id
from amibuild.plan import digest_of
from amibuild.project import Project
from amibuild.recipe.model import Recipe
from amibuild.scope import Scope
from amibuild.stage import Stages, told
from amibuild.steps.access import make_access
from amibuild.steps.connect import first_boot
from amibuild.steps.console import console_kept
from amibuild.steps.distribute import mark
from amibuild.steps.launch import Launch, Purpose, launch
from amibuild.steps.preflight import preflight
from amibuild.steps.reach import Way, admission, is_proven_over_ssh, ssh_of, ways
from amibuild.steps.upload import BucketUpload
from amibuild.verify.bundle import build_bundle
from amibuild.verify.disk import (
    HygieneReport,
    as_checks,
    attach_disk_copy,
    hygiene_started,
    known_public,
    make_disk_copy,
)
from amibuild.verify.known import KnownValues
from amibuild.verify.report import (
    CheckResult,
    VerifyReport,
    could_not_run,
    kept,
    parse_report,
)
from amibuild.wait import Observer, SystemClock

# Of the log of a service that was not installed: with several, all of it would bury the first.
TOLD_LINES = 8


@dataclass(frozen=True)
class Proof:
    """Both halves of the proof. An image is verified when neither has a failure.

    `machine` is the instance that was checked. `not_installed` are services whose installation
    failed: each is a failure of the image by itself.
    """

    report: VerifyReport
    hygiene: HygieneReport
    not_installed: Mapping[str, StepFailed] = field(default_factory=dict)
    machine: str = ""

    @property
    def whole_report(self) -> VerifyReport:
        """The checks, and each rule of the finished disk as if it were one."""
        return replace(self.report, checks=(*self.report.checks, *as_checks(self.hygiene)))

    @property
    def failures(self) -> list[str]:
        found = [
            "\n    ".join(
                [f"{name} was not installed: it {error.reason}; its log is {error.log}"]
                + [line for line in error.tail[-TOLD_LINES:] if line.strip()]
                + ([f"hint: {error.hint}"] if error.hint else [])
            )
            for name, error in self.not_installed.items()
        ]
        found += [f"{f.rule}: {f.path}: {f.detail}" for f in self.hygiene.failed]
        found += [f"{c.id}: {c.reason}" for c in self.report.checks if c.failed]
        return found

    @property
    def passed(self) -> bool:
        return self.report.passed > 0 and not self.failures


@dataclass(frozen=True)
class Subject:
    """What is proven, and with what: `steps` bring the checks, `logs` is a folder.

    Those of `not_installed` are not run: each would fail for the same reason. `audited` are the
    checks that ran on the builder, and count like the others. `known` are values that must be
    nowhere on its disk.
    """

    image: Image
    steps: Sequence[BuildStep]
    recipe: Recipe
    networks: Sequence[Network]
    security_group_id: str
    tags: Mapping[str, str]
    lease: timedelta
    logs: Path
    not_installed: Mapping[str, StepFailed] = field(default_factory=dict)
    audited: Sequence[CheckResult] = ()
    known: KnownValues = field(default_factory=KnownValues)


def verify(
    project: Project,
    cloud: Cloud,
    reference: str,
    *,
    target: str,
    subscribers: Sequence[Subscriber],
) -> Proof:
    """The proof of an image that there is, by id, version, name or `@channel`, with the
    recipe's checks.

    Its tags say afterwards how it went, unless it was made from another state of the recipe: what
    that one promised is not what was checked.
    Raises: UsageError for an image that is not there, or is another recipe's; what a launch
    raises. A failed check is in the result, not an error: `require` makes it one.
    """
    facts = find(cloud, project.recipe, reference)
    if facts.image != project.recipe.image.name:
        raise UsageError(
            f"{facts.id} is an image of {facts.image}, and {project.path} makes "
            f"{project.recipe.image.name}: its checks would say nothing about it",
            hint=f"name the recipe of {facts.image} with --recipe",
        )
    image = cloud.images.image(facts.id)
    volume_gib, kms_key = project.recipe.builder.volume_gib, project.recipe.aws.kms_key
    same = digest_of(facts.source_ami, project.steps, volume_gib, kms_key) == facts.digest
    run_id = new_bake_id()
    marks = {Tag.IMAGE: project.recipe.image.name, Tag.BAKE_ID: str(run_id)}
    tags = Lease(cloud, run_id, marks, project.lease, SystemClock())
    started = BakeStarted(
        bake_id=run_id,
        image=project.recipe.image.name,
        digest=facts.digest,
        target=target,
        region=cloud.region,
        source_ami=image.id,
        recipe=str(project.path),
        pid=os.getpid(),
        version=__version__,
        ssh=ssh_of(project.recipe),
        fresh_over_ssh=is_proven_over_ssh(project.recipe, project.steps),
    )
    with (
        ExitStack() as ending,
        Journal(journal_path(project.state_dir, run_id), (*subscribers, tags.hear)) as journal,
        told(journal, stages := Stages(journal), started),
        Scope(journal, CloudRemover(cloud), bake_id=run_id, region=cloud.region) as scope,
        stages.run("verify", f"{image.id} on a fresh boot"),
    ):
        if not same:
            text = f"{image.id} was made from another state of the recipe; the checks are today's"
            journal.write(Noted(text=f"{text}, and its mark stays as it is"))
        ready = preflight(cloud, project.recipe, project.steps)
        admitted = admission(cloud, project.recipe)
        group = make_access(
            cloud, scope, ready.networks[0].vpc_id, run_id, tags, journal.show, admitted
        )
        bucket = project.recipe.aws.bucket
        upload = BucketUpload(cloud, scope, bucket, run_id, journal.show) if bucket else None
        ending.callback(forget_keys, project.state_dir, run_id)
        keys = keys_file(project.state_dir, run_id)
        over = ways(cloud, project.recipe, project.steps, upload, keys)
        ending.enter_context(closing(over))
        logs = project.state_dir / "logs" / run_id
        subject = Subject(
            image, project.steps, project.recipe, ready.networks, group, tags, project.lease, logs
        )
        proof = prove(
            cloud,
            scope,
            run_id,
            subject,
            over.fresh,
            journal.show,
        )
        # One with an end is a dead bake's leftover: `reap` removes it, whatever it passes.
        if same and Tag.EXPIRES not in facts.tags:
            mark(cloud, image, passed=proof.passed)
        return proof


def prove(
    cloud: Cloud,
    scope: Scope,
    bake_id: BakeId,
    subject: Subject,
    way: Way,
    observer: Observer,
) -> Proof:
    """Boots a fresh machine from the image and checks it, and its disk.

    The machine's removal has begun when this returns.
    """
    recipe, image = subject.recipe, subject.image
    wanted = Launch(
        purpose=Purpose.VERIFY,
        image_id=image.id,
        root_device=image.root_device,
        volume_gib=image.size_gib,
        instance_types=recipe.verify.instance_types or recipe.builder.instance_types,
        networks=subject.networks,
        security_group_id=subject.security_group_id,
        instance_profile=recipe.aws.instance_profile,
        kms_key=recipe.aws.kms_key,
        public_ip=recipe.aws.public_ip,
        user_data=way.user_data(lease_user_data(subject.lease)),
        tags=subject.tags,
        timeout_s=recipe.builder.launch_timeout_s,
    )
    facts = launch(cloud, scope, bake_id, wanted, observer)
    machine = facts.id
    with console_kept(cloud, machine, subject.logs / "verify-console.log"):
        volume = make_disk_copy(
            cloud, scope, bake_id, image, facts.zone, recipe.aws.kms_key, subject.tags
        )
        limit_s = recipe.verify.timeout_s
        communicator = way.reach(machine, timeout_s=limit_s, observer=observer)
        attach_disk_copy(cloud, volume, machine, observer)
        scope.seen(volume)  # it goes with the machine
        subject.known.add_those_of(cloud)
        if subject.known.has_secrets:
            communicator = Discreet(communicator)
        checked = [step for step in subject.steps if step.name not in subject.not_installed]
        # The checks mostly wait, for the boot to begin with, and the disk is read meanwhile.
        with hygiene_started(
            communicator,
            volume,
            image.size_gib,
            hygiene_rules(),
            subject.known,
            known_public(subject.steps),
            subject.logs / "hygiene.log",
            observer,
        ) as hygiene_ended:
            report = run_checks(
                communicator, checked, subject.lease, subject.logs, limit_s, observer
            )
            report = replace(report, checks=(*subject.audited, *report.checks))
            hygiene = hygiene_ended()
    scope.begin_removal(machine)
    return Proof(report, hygiene, subject.not_installed, machine)


def run_checks(
    communicator: Communicator,
    steps: Sequence[BuildStep],
    lease: timedelta,
    logs: Path,
    timeout_s: int,
    observer: Observer,
) -> VerifyReport:
    """All checks of all steps, as one command. Their log is in `logs`.

    Raises: VerifyFailed when they could not run at all.
    """
    # The first boot's job travels along: the bundle is on its way while the boot ends.
    first = first_boot(lease)
    file = StepFile("first-boot.sh", first.script.encode())
    return _run(
        communicator, "checks", steps, logs, timeout_s, observer, (file,), first.environment
    )


def audit(
    communicator: Communicator,
    steps: Sequence[BuildStep],
    logs: Path,
    timeout_s: int,
    observer: Observer,
) -> tuple[CheckResult, ...]:
    """The checks that steps want to run on the builder too, where there are any.

    Their facts have `on_builder`, and their ids end with ON_BUILDER.
    Raises: VerifyFailed when they could not run at all.
    """
    audited = [
        replace(
            step,
            checks=tuple(check for check in step.checks if check.path in step.builder_checks),
            facts={**step.facts, "on_builder": True},
        )
        for step in steps
        if step.builder_checks
    ]
    if not audited:
        return ()
    report = _run(communicator, "audit", audited, logs, timeout_s, observer)
    return tuple(replace(check, id=check.id + ON_BUILDER) for check in report.checks)


def _run(
    communicator: Communicator,
    name: str,
    steps: Sequence[BuildStep],
    logs: Path,
    timeout_s: int,
    observer: Observer,
    files_besides: tuple[StepFile, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> VerifyReport:
    """`name`.sh, with the checks of `steps` as one archive."""
    script = files("amibuild.verify").joinpath(f"{name}.sh").read_text()
    sent = (StepFile("checks.pyz", build_bundle(steps)), *files_besides)
    job = RemoteJob(name, script, timeout_s, sent, environment or {})
    result = kept(communicator.run(job, observer), logs / name)
    if not result.result:
        raise could_not_run(name, result)
    return parse_report(result.result)


def require(proof: Proof, image_id: str) -> None:
    """Raises: VerifyFailed, with every failure."""
    failures = proof.failures
    if failures:
        missing = ", ".join(proof.not_installed)
        checks = len(failures) - len(proof.not_installed)
        found = [
            *([f"could not be given {missing}"] if missing else []),
            *(["failed one check"] if checks == 1 else []),
            *([f"failed {checks} checks"] if checks > 1 else []),
        ]
        raise VerifyFailed(f"{image_id} {' and '.join(found)}", failures=failures)
    if not proof.report.passed:
        raise VerifyFailed(f"{image_id} passed no check, so nothing is proven")
