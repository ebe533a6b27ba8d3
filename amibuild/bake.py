"""A bake, from a recipe to a proven image: straight-line code, one call per step.

preflight → access → launch → connect → provision → seal → shut down → capture → verify on a
fresh boot → distribute → record. One scope owns everything: on success only the image stays. The
result is handed over as soon as it is proven; removing the machines goes on after that, and is
awaited before the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from amibuild import __version__
from amibuild.attempts import build_image
from amibuild.attended import Attended, Person
from amibuild.aws.ec2 import Spot
from amibuild.aws.removal import CloudRemover
from amibuild.aws.session import Cloud
from amibuild.aws.source import resolve_source
from amibuild.bake_keys import forget_keys, keys_file
from amibuild.build import Built, Order, built_before
from amibuild.change import manifest_key
from amibuild.errors import NotFound
from amibuild.journal import BakeStarted, Noted, Subscriber, journal_path
from amibuild.lease import Lease
from amibuild.library.bootstrap import bootstrap_user_data
from amibuild.lock import Standing
from amibuild.names import Tag, new_bake_id
from amibuild.outputs.changes import changes
from amibuild.plan import Plan, make_plan
from amibuild.project import Project, commit_of
from amibuild.recipe.model import Source
from amibuild.record import (
    Made,
    check_writable,
    hand_over,
    is_of,
    last_manifest,
    papers_of,
    record,
)
from amibuild.registry import ImageFacts, find_reusable, image_now, not_reusable, pinned
from amibuild.resume import Earlier, journal_of, own_again, take_up
from amibuild.scope import OnError, Scope
from amibuild.stage import Stages, told
from amibuild.steps.access import admit_alone, make_access
from amibuild.steps.artifacts import ArtifactSources, Places
from amibuild.steps.distribute import distribute, mark, share
from amibuild.steps.lock import LEASE, Overtaken, take, wait_until_free
from amibuild.steps.preflight import preflight, refuse
from amibuild.steps.reach import admission, is_proven_over_ssh, ssh_of, ways
from amibuild.steps.secrets import read_secrets
from amibuild.steps.upload import BucketUpload
from amibuild.verify.boot import Proof, Subject, prove, require
from amibuild.verify.known import KnownValues
from amibuild.wait import Clock, SystemClock, Waiting


@dataclass(frozen=True)
class BakeResult:
    """`manifest` and `runbook` are None for a reused image that was baked elsewhere; these and
    `tfvars` where the papers could not be written."""

    image_id: str
    image_name: str
    version: str
    region: str
    digest: str
    reused: bool
    verified: bool
    manifest: Path | None
    runbook: Path | None
    tfvars: Path | None
    seconds_total: float
    seconds_by_step: dict[str, float]


def plan_bake(
    project: Project, cloud: Cloud, source_ami: str | None = None
) -> tuple[Plan, ImageFacts | None]:
    """What a bake would do, and the verified image that `--if-changed` would reuse.

    `source_ami` is what the recipe's source was when the bake began that is resumed.
    """
    source = resolve_source(cloud, project.recipe.source)
    if source_ami not in {None, source.id}:
        began_from = resolve_source(cloud, Source(id=source_ami))
        source = replace(began_from, reference=source.reference)
    plan = make_plan(project, source)
    reusable = find_reusable(
        cloud,
        image=plan.image,
        digest=plan.digest,
        max_age_days=project.recipe.verify.max_age_days,
    )
    return plan, reusable


def reasons(project: Project, cloud: Cloud, plan: Plan, target: str) -> tuple[str, ...]:
    """Why no image is used again: what this plan makes otherwise than the last one did, or what has
    become of that image.

    What differs only from this folder; the account's tags have digests and no contents.
    """
    last = last_manifest(project.state_dir, plan.image, target)
    if last is None:
        return (f"nothing to compare with: no manifest of an image in {project.state_dir}",)
    since = f"since {last.image.name}"
    if last.digest != plan.digest:
        return tuple(f"{since}: {one}" for one in changes(last, plan))
    days = project.recipe.verify.max_age_days
    try:
        image = image_now(cloud, last.image.id)
    except NotFound:
        return (f"{since}: nothing, but it is gone",)
    why = not_reusable(image, plan.digest, days, datetime.now(UTC))
    return (f"{since}: nothing, but {why or 'it could not be used a moment ago'}",)


def bake(
    project: Project,
    cloud: Cloud,
    *,
    target: str,
    if_changed: bool,
    on_error: OnError,
    subscribers: Sequence[Subscriber],
    on_result: Callable[[BakeResult], None],
    on_proof: Callable[[Proof], None] | None = None,
    resume: str | None = None,
    lock_timeout_s: float = 0.0,
    person: Person | None = None,
    pause_before: str | None = None,
    clock: Clock | None = None,
    environ: Mapping[str, str] = os.environ,
) -> BakeResult:
    """`environ` is where the recipe's secrets are looked for that come from the environment;
    `on_proof` hears of the checks also where one failed; `resume` is the id of a bake that is gone
    on with; the `person` is asked with OnError.ASK, and before that step.

    Raises: Locked, VerifyFailed, LeftoverError, Interrupted, and what each step raises."""
    clock = clock or SystemClock()
    asked, left_s = clock.monotonic(), lock_timeout_s

    def show(waiting: Waiting) -> None:
        for subscriber in subscribers:
            subscriber(waiting)

    while True:
        earlier = take_up(project, cloud, target, resume) if resume else None
        plan, reusable = plan_bake(project, cloud, earlier.started.source_ami if earlier else None)
        before = built_before(earlier, plan) if earlier else None
        check_writable(project)
        if if_changed and reusable is not None:
            refuse(project.recipe)
            share(cloud, reusable.id, reusable.snapshot_ids, project.recipe.publish.accounts)
            tfvars = hand_over(project, pinned(reusable))
            result = _reused(project, reusable, tfvars, round(clock.monotonic() - asked, 3))
            on_result(result)
            return result
        if if_changed:
            for why in reasons(project, cloud, plan, target):
                for subscriber in subscribers:
                    subscriber(Noted(text=why))
        began = clock.monotonic()
        free, waited = wait_until_free(
            cloud, plan.image, project.state_dir, timeout_s=left_s, clock=clock, observer=show
        )
        left_s = max(left_s - (clock.monotonic() - began), 0.0)
        if waited:
            continue  # the other bake may have made this very image
        attended = Attended(on_error, person=person, pause_before=pause_before, clock=clock)
        try:
            return _bake(
                project, cloud, plan, free, earlier, before, attended, target=target,
                on_error=on_error, subscribers=subscribers, on_result=on_result,
                on_proof=on_proof, clock=clock, environ=environ,
            )  # fmt: skip
        except Overtaken:  # nothing is there yet but a journal
            continue


def _bake(
    project: Project,
    cloud: Cloud,
    plan: Plan,
    free: Standing,
    earlier: Earlier | None,
    built: Built | None,
    attended: Attended,
    *,
    target: str,
    on_error: OnError,
    subscribers: Sequence[Subscriber],
    on_result: Callable[[BakeResult], None],
    on_proof: Callable[[Proof], None] | None,
    clock: Clock,
    environ: Mapping[str, str],
) -> BakeResult:
    """The bake of a plan, once nobody has the image's lock; `built` is there when `earlier` runs
    came as far as that. Raises: Overtaken."""
    bootstrap = bootstrap_user_data(plan.steps, cloud.region, project.lease)
    recipe = project.recipe
    spot = Spot(recipe.builder.spot_max_price) if recipe.builder.spot else None
    bake_id = earlier.bake_id if earlier else new_bake_id()
    began = earlier.began if earlier else datetime.now(UTC)
    attempt = earlier.attempt if earlier else 0
    logs = project.state_dir / "logs" / bake_id
    places = Places(project.directory, recipe.artifacts.mirror)
    commit = commit_of(project.directory)
    secrets = read_secrets(cloud, recipe, plan.steps, environ)
    if earlier is not None:
        earlier.same_secrets(secrets)
    known = KnownValues()
    known.add_those_of(cloud)
    for secret in secrets.values():
        known.add_secret(secret)
    tags = {Tag.IMAGE: plan.image, Tag.BAKE_ID: str(bake_id)}
    temporary = Lease(cloud, bake_id, tags, project.lease, clock)
    started = BakeStarted(
        bake_id=bake_id,
        image=plan.image,
        digest=plan.digest,
        target=target,
        region=cloud.region,
        source_ami=plan.source.id,
        recipe=str(project.path),
        pid=os.getpid(),
        version=__version__,
        source_reference=plan.source.reference,
        volume_gib=plan.volume_gib,
        kms_key=plan.kms_key,
        overrides=project.overrides,
        ssh=ssh_of(recipe),
        fresh_over_ssh=is_proven_over_ssh(recipe, plan.steps),
    )
    remover = CloudRemover(cloud, clock)
    with (
        ExitStack() as ending,
        journal_of(
            journal_path(project.state_dir, bake_id),
            (*subscribers, temporary.hear, attended.hear),
            earlier,
        ) as journal,
        told(
            journal,
            stages := Stages(journal, clock, earlier.seconds if earlier else None),
            started,
            lambda: attended.on_error,
        ),
        # Of its own: whatever is kept for a look, the next bake may begin.
        Scope(
            journal, remover, bake_id=bake_id, region=cloud.region, attempt=attempt, clock=clock
        ) as locking,
        take(cloud, locking, journal, bake_id, free, lease=LEASE, clock=clock) as held,
        Scope(
            journal,
            remover,
            bake_id=bake_id,
            region=cloud.region,
            on_error=on_error,
            attempt=attempt,
            clock=clock,
        ) as scope,
        attended.over(scope, journal),
    ):
        watch = journal.show

        def look_after(stage: str) -> None:
            attended.before(stage)
            held.renew()

        stages.before_each = look_after
        with stages.run("preflight", "checks what can be refused before it costs"):
            ready = preflight(cloud, recipe, plan.steps, places)
            for note in ready.notes:
                journal.write(Noted(text=note))
            admitted = admission(cloud, recipe)
            bucket = recipe.aws.bucket
            upload = BucketUpload(cloud, scope, bucket, bake_id, watch) if bucket else None
            ending.callback(forget_keys, project.state_dir, bake_id)
            keys = keys_file(project.state_dir, bake_id)
            machine = earlier.machine if earlier else None
            over = ways(cloud, recipe, plan.steps, upload, keys, clock, machine=machine)
            ending.enter_context(closing(over))
            user_data = over.builder.user_data(bootstrap)
        for name, value in over.telling.items():
            known.add(name, value)
        who = f"{admitted.cidr} alone in" if admitted else "nothing in"
        with stages.run("access", f"a security group that lets {who}"):
            vpc_id = ready.networks[0].vpc_id
            there = earlier.group(cloud, vpc_id) if earlier else None
            if there and admitted:  # this host's address may be another one now
                admit_alone(cloud, there, admitted, watch)
            if earlier is not None:  # nothing can be refused any more that would cost it
                own_again(earlier, scope, journal)
                temporary.renew()
            group = there or make_access(cloud, scope, vpc_id, bake_id, temporary, watch, admitted)
        order = Order(
            plan=plan,
            recipe=recipe,
            networks=ready.networks,
            security_group_id=group,
            user_data=user_data,
            tags=temporary,
            way=over.builder,
            sources=ArtifactSources(cloud, places, upload),
            secrets=secrets,
            logs=logs,
            lease=project.lease,
            kept_when_failed=on_error is OnError.KEEP,
            earlier=earlier,
            spot=spot,
            attended=attended,
        )
        built, captured, image = build_image(
            cloud, scope, journal, stages, bake_id, order, built, commit
        )
        with stages.run("verify", f"{image.id} on a fresh boot"):
            subject = Subject(
                image, plan.steps, recipe, ready.networks, group, temporary, project.lease, logs,
                built.failed, built.audited, known,
            )  # fmt: skip
            proof = prove(cloud, scope, bake_id, subject, over.fresh, watch)
            if on_proof is not None:
                on_proof(proof)
            if not proof.passed and on_error is not OnError.CLEAN:
                mark(cloud, image, passed=False)
            require(proof, image.id)
        with stages.run("distribute", f"marks {image.id} as verified"):
            distribute(cloud, image, recipe.publish.accounts)
        result = BakeResult(
            image_id=image.id,
            image_name=captured.name,
            version=captured.version,
            region=cloud.region,
            digest=plan.digest,
            reused=False,
            verified=True,
            manifest=None,
            runbook=None,
            tfvars=None,
            seconds_total=stages.total_s,
            seconds_by_step=dict(stages.seconds),
        )
        # The image is there and proven: whatever happens to its papers, its id must be told.
        try:
            scope.keep(image.id, "the result")
            with (
                papers_of(image.id),
                stages.run("record", "the manifest, RUNBOOK.md and Terraform's variables"),
            ):
                made = Made(
                    plan, bake_id, began, target, cloud.region, commit, image, captured.version,
                    built.runs, built.inventory, proof, stages.total_s, dict(stages.seconds),
                )  # fmt: skip
                written = record(project, made)
                result = replace(
                    result, manifest=written.manifest, runbook=written.runbook,
                    tfvars=written.tfvars,
                )  # fmt: skip
                if bucket:
                    key = manifest_key(image.name)
                    cloud.s3.put(bucket, key, written.manifest_text.encode())
        finally:
            result = replace(
                result, seconds_total=stages.total_s, seconds_by_step=dict(stages.seconds)
            )
            on_result(result)
    return result


def _reused(project: Project, image: ImageFacts, tfvars: Path, seconds: float) -> BakeResult:
    manifest = project.state_dir / "manifests" / f"{image.name}.json"
    runbook = project.directory / "RUNBOOK.md"
    return BakeResult(
        image_id=image.id,
        image_name=image.name,
        version=image.version,
        region=image.region,
        digest=image.digest,
        reused=True,
        verified=image.verified,
        manifest=manifest if is_of(manifest, image.id) else None,
        runbook=runbook if runbook.exists() else None,
        tfvars=tfvars,
        seconds_total=seconds,
        seconds_by_step={},
    )
