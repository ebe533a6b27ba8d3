"""The dev loop: a machine that stays, on which steps run again on each save, with their checks.

It is a bake's builder that is never sealed, so nothing of it becomes an image. Its journal says
which steps have run on it as what, so that the next call goes on in the same machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from amibuild import __version__
from amibuild.aws.removal import CloudRemover
from amibuild.aws.session import Cloud
from amibuild.aws.source import resolve_source
from amibuild.bench import Bench, Round
from amibuild.errors import Interrupted, UsageError
from amibuild.journal import (
    KEPT_TO_DEVELOP,
    BakeStarted,
    Journal,
    Noted,
    Remains,
    ResourceKind,
    StepRan,
    Subscriber,
    journal_path,
    read,
)
from amibuild.lease import Lease
from amibuild.library.bootstrap import bootstrap_user_data
from amibuild.library.load import bundled_provisioners
from amibuild.names import BakeId, InstanceId, Tag, new_bake_id
from amibuild.plan import Plan, make_plan
from amibuild.project import Project
from amibuild.resume import forget_keys, keys_file, living
from amibuild.saved import snapshot, wait_for_save
from amibuild.scope import Scope
from amibuild.stage import Stages, told
from amibuild.steps.access import admit, make_access
from amibuild.steps.artifacts import Places
from amibuild.steps.connect import wait_for_first_boot
from amibuild.steps.launch import Launch, Purpose, launch, wait_until_running
from amibuild.steps.preflight import preflight
from amibuild.steps.reach import Way, admission, ways
from amibuild.steps.upload import BucketUpload
from amibuild.wait import Clock, SystemClock

FLOW = "dev"


@dataclass(frozen=True)
class _Earlier:
    path: Path
    remains: Remains
    started: BakeStarted
    machine: InstanceId | None


def _earlier(project: Project, cloud: Cloud) -> _Earlier | None:
    """The newest dev machine of this recipe, or what is left of it."""
    for path in sorted((project.state_dir / "journals").glob("*.jsonl"), reverse=True):
        remains = Remains(path)
        started = remains.started
        if started is None or started.flow != FLOW or started.recipe != str(project.path):
            continue
        resources = tuple(remains.resources.values())
        if resources and started.region == cloud.region:
            facts = living(cloud, resources, Purpose.BUILD)
            alive = facts is not None and facts.state in {"pending", "running"}
            return _Earlier(path, remains, started, facts.id if facts and alive else None)
    return None


def _ran_on(path: Path, machine: InstanceId) -> dict[str, str]:
    """Step -> the digest of what ran there last, well."""
    events = (event for event in read(path) if isinstance(event, StepRan))
    return {event.step: event.digest for event in events if event.machine == machine}


@contextmanager
def opened(
    project: Project,
    cloud: Cloud,
    *,
    target: str,
    fresh: bool,
    subscribers: Sequence[Subscriber],
    on_machine: Callable[[], None] = lambda: None,
    environ: Mapping[str, str] = os.environ,
) -> Iterator[Bench]:
    """The machine of an earlier call, or with `fresh`, or where the recipe begins elsewhere by now,
    a new one. It stays when this ends; `on_machine` hears as soon as one is there.

    Raises: JournalBusy while another process has it; what a launch raises.
    """
    clock = SystemClock()
    plan = make_plan(project, resolve_source(cloud, project.recipe.source))
    earlier = _earlier(project, cloud)
    if earlier is not None and (fresh or not _fits(earlier, plan)):
        _end(earlier, project, cloud, subscribers)
        earlier = None
    run_id = BakeId(earlier.path.stem) if earlier else new_bake_id()
    recipe = project.recipe
    marks = {Tag.IMAGE: plan.image, Tag.BAKE_ID: str(run_id)}
    tags = Lease(cloud, run_id, marks, project.lease, clock)
    path = journal_path(project.state_dir, run_id)
    started = BakeStarted(
        bake_id=run_id,
        image=plan.image,
        digest=plan.digest,
        target=target,
        region=cloud.region,
        source_ami=plan.source.id,
        recipe=str(project.path),
        pid=os.getpid(),
        version=__version__,
        flow=FLOW,
        volume_gib=plan.volume_gib,
        kms_key=plan.kms_key,
        overrides=project.overrides,
    )
    with (
        ExitStack() as ending,
        Journal(path, (*subscribers, tags.hear)) as journal,
        told(journal, stages := Stages(journal, clock), started),
        Scope(journal, CloudRemover(cloud, clock), bake_id=run_id, region=cloud.region) as scope,
    ):
        bucket = recipe.aws.bucket
        upload = BucketUpload(cloud, scope, bucket, run_id) if bucket else None
        ending.callback(forget_keys, project.state_dir, run_id)
        keys = keys_file(project.state_dir, run_id)
        over = ways(cloud, recipe, plan.steps, upload, keys, clock)
        ending.enter_context(closing(over))
        machine = earlier.machine if earlier else None
        if earlier is None or machine is None:
            machine = _launched(
                project, cloud, plan, scope, run_id, tags, journal, stages, over.builder
            )
        else:
            tags.renew()
            _admit(cloud, earlier, project, journal)
        with stages.run("connect", f"to {machine} over {over.builder.name}"):
            limit_s = recipe.builder.connect_timeout_s
            communicator = over.builder.reach(machine, timeout_s=limit_s, observer=journal.show)
            wait_for_first_boot(communicator, project.lease, journal.show)
        for created in Remains(path).resources.values():
            scope.keep(created.id, KEPT_TO_DEVELOP)
        on_machine()
        ran = _ran_on(path, machine)
        logs = project.state_dir / "logs" / run_id
        yield Bench(
            run_id, machine, cloud, journal, stages, communicator, upload, logs, ran, environ
        )


def _fits(earlier: _Earlier, plan: Plan) -> bool:
    there, started = (plan.source.id, plan.volume_gib, plan.kms_key), earlier.started
    began = (started.source_ami, started.volume_gib, started.kms_key)
    return earlier.machine is not None and there == began


def _end(
    earlier: _Earlier, project: Project, cloud: Cloud, subscribers: Sequence[Subscriber]
) -> None:
    """Removes a machine that is not gone on with, and all that belongs to it."""
    run_id = BakeId(earlier.path.stem)
    remover = CloudRemover(cloud)
    with (
        Journal(earlier.path, tuple(subscribers)) as journal,
        Scope(journal, remover, bake_id=run_id, region=cloud.region) as scope,
    ):
        remains = Remains(earlier.path)
        for created in remains.resources.values():
            scope.adopt(created)
        for intent in remains.intents.values():
            scope.adopt_intended(intent)
    forget_keys(project.state_dir, run_id)


def _admit(cloud: Cloud, earlier: _Earlier, project: Project, journal: Journal) -> None:
    """This host's address may be another one now."""
    admitted = admission(cloud, project.recipe)
    for created in earlier.remains.resources.values():
        if admitted is not None and created.kind is ResourceKind.SECURITY_GROUP:
            admit(cloud, created.id, admitted, journal.show)


def _launched(
    project: Project,
    cloud: Cloud,
    plan: Plan,
    scope: Scope,
    run_id: BakeId,
    tags: Lease,
    journal: Journal,
    stages: Stages,
    way: Way,
) -> InstanceId:
    recipe = project.recipe
    with stages.run("preflight", "checks what can be refused before it costs"):
        places = Places(project.directory, recipe.artifacts.mirror)
        ready = preflight(cloud, recipe, plan.steps, places)
        for note in ready.notes:
            journal.write(Noted(text=note))
        admitted = admission(cloud, recipe)
    with stages.run("launch", f"a machine from {plan.source.id}"):
        vpc_id = ready.networks[0].vpc_id
        group = make_access(cloud, scope, vpc_id, run_id, tags, journal.show, admitted)
        bootstrap = bootstrap_user_data(plan.steps, cloud.region, project.lease)
        wanted = Launch(
            purpose=Purpose.BUILD,
            image_id=plan.source.id,
            root_device=plan.source.root_device,
            volume_gib=plan.volume_gib,
            instance_types=recipe.builder.instance_types,
            networks=ready.networks,
            security_group_id=group,
            instance_profile=recipe.aws.instance_profile,
            kms_key=recipe.aws.kms_key,
            public_ip=recipe.aws.public_ip,
            user_data=way.user_data(bootstrap),
            tags=tags,
        )
        machine = launch(cloud, scope, run_id, wanted)
        limit_s = recipe.builder.launch_timeout_s
        wait_until_running(cloud, machine, timeout_s=limit_s, observer=journal.show)
    return machine


def develop(
    bench: Bench,
    project: Project,
    wanted: Sequence[str],
    *,
    load: Callable[[], Project],
    tell: Callable[[Round, str], None],
    refused: Callable[[UsageError], None],
    asked: Callable[[], bool] = lambda: False,
    rebooted: bool = False,
    clock: Clock | None = None,
) -> None:
    """Runs the steps that are `wanted`, and at each save, which is what `load` reads, or when
    somebody `asked`, what differs. Ends with a signal that comes while it waits for one.

    `tell` hears of each round and how long it took, from the save on; `refused` of a save that
    makes no recipe.
    """
    clock = clock or SystemClock()
    since, of = clock.now().timestamp(), "in {:.1f}s"
    # What is saved while something runs is seen when that is done.
    seen = snapshot(watched(project))
    again: Sequence[str] = wanted
    while True:
        try:
            done = bench.run(project, wanted, again=again, rebooted=rebooted)
            tell(done, of.format(max(clock.now().timestamp() - since, 0.0)))
        except UsageError as error:
            refused(error)
        while True:
            try:
                now, saved = wait_for_save(
                    watched(project), seen, clock=clock, observer=bench.wait, asked=asked
                )
            except Interrupted:
                return
            again = wanted if now == seen else ()
            since = clock.now().timestamp() if saved is None else saved
            of = "in {:.1f}s" if saved is None else "{:.1f}s after the save"
            seen = now
            bench.wait_is_over()
            try:
                project = load()
                break
            except UsageError as error:
                refused(error)


def watched(project: Project) -> tuple[Path, ...]:
    """What a save of has something run again: the recipe, and every provisioner and service."""
    return (project.path, project.directory / "provisioners", bundled_provisioners())
