"""The dev loop: a machine that stays, on which steps run again on each save, with their checks.

It is a bake's builder that is never sealed, so nothing of it becomes an image. Its journal says
which steps have run on it as what, so that the next call goes on in the same machine.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from amibuild import __version__
from amibuild.aws.removal import CloudRemover
from amibuild.aws.session import Cloud
from amibuild.aws.source import resolve_source
from amibuild.bake_keys import forget_keys, keys_file
from amibuild.bench import CHECKS, Bench, Round, chosen
from amibuild.errors import Interrupted, ResourceFailed, UsageError
from amibuild.journal import (
    KEPT_TO_DEVELOP,
    BakeStarted,
    Journal,
    Kept,
    Noted,
    Remains,
    ResourceKind,
    StepEnded,
    StepRan,
    StepStarted,
    Subscriber,
    journal_path,
    read,
)
from amibuild.lease import Lease
from amibuild.library.bootstrap import bootstrap_user_data
from amibuild.library.load import bundled_provisioners
from amibuild.library.step import BuildStep, StepKind
from amibuild.names import BakeId, InstanceId, Tag, new_bake_id
from amibuild.plan import Plan, make_plan
from amibuild.project import Project
from amibuild.resume import living
from amibuild.saved import snapshot, wait_for_save
from amibuild.scope import Scope
from amibuild.stage import Stages, told
from amibuild.steps.access import admit_alone, make_access
from amibuild.steps.artifacts import Places
from amibuild.steps.connect import wait_for_first_boot
from amibuild.steps.launch import Launch, Purpose, launch
from amibuild.steps.preflight import preflight
from amibuild.steps.reach import Way, admission, ssh_of, ways
from amibuild.steps.secrets import read_secrets
from amibuild.steps.upload import BucketUpload
from amibuild.wait import Clock, SystemClock

FLOW = "dev"


@dataclass(frozen=True)
class _Earlier:
    """A call before this one, and what is left of it; `machine` is None where none runs."""

    path: Path
    remains: Remains
    started: BakeStarted
    machine: InstanceId | None


def _earlier(project: Project, cloud: Cloud) -> list[_Earlier]:
    """All calls with this recipe that have left something, the newest first."""
    found = []
    for path in sorted((project.state_dir / "journals").glob("*.jsonl"), reverse=True):
        remains = Remains(path)
        started = remains.started
        if started is None or started.flow != FLOW or started.region != cloud.region:
            continue
        # The journals are beside the recipe, and the folder may have been moved.
        if Path(started.recipe).name == project.path.name and (
            remains.resources or remains.intents
        ):
            found.append(_Earlier(path, remains, started, _running(cloud, remains)))
    return found


def _running(cloud: Cloud, remains: Remains) -> InstanceId | None:
    facts = living(cloud, tuple(remains.resources.values()), Purpose.BUILD)
    return facts.id if facts is not None and facts.state in {"pending", "running"} else None


def _ran_on(path: Path, machine: InstanceId) -> dict[str, str]:
    """Step -> the digest of what ran there well, and has not begun again since."""
    ran: dict[str, str] = {}
    for event in read(path):
        if isinstance(event, StepStarted):
            ran.pop(event.step, None)
        elif isinstance(event, StepRan) and event.machine == machine:
            ran[event.step] = event.digest
    return ran


def launched_as(project: Project) -> str:
    """A digest of what a machine is launched with, and how it is reached, besides its source."""
    recipe = project.recipe
    settings = [
        recipe.source.model_dump(mode="json"),
        recipe.builder.communicator.value,
        recipe.builder.volume_gib,
        recipe.builder.instance_types,
        recipe.ssh.model_dump(mode="json"),
        recipe.aws.model_dump(mode="json", exclude={"bucket"}),
    ]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def not_restarted(path: Path, machine: InstanceId, steps: Sequence[BuildStep]) -> set[str]:
    """Units of the services that ran there since checks were last through: they may still be what
    they were before, for it is with the checks that they start again."""
    since: set[str] = set()
    for event in read(path):
        if isinstance(event, StepRan) and event.machine == machine:
            since.add(event.step)
        elif isinstance(event, StepEnded) and event.step == CHECKS:
            since.clear()
    return {s.facts["unit"] for s in steps if s.kind is StepKind.SERVICE and s.name in since}


@contextmanager
def opened(
    project: Project,
    cloud: Cloud,
    wanted: Sequence[str] = (),
    *,
    target: str,
    fresh: bool,
    subscribers: Sequence[Subscriber],
    on_machine: Callable[[], None] = lambda: None,
    environ: Mapping[str, str] = os.environ,
) -> Iterator[Bench]:
    """The machine of an earlier call, or with `fresh`, or where the recipe asks for another one by
    now, a new one. It stays when this ends; `on_machine` hears as soon as one is there.

    Raises: UsageError for a step that is none, or a secret that can't be had, before anything is
    made; JournalBusy while another process has the machine; what a launch raises.
    """
    clock = SystemClock()
    plan = make_plan(project, resolve_source(cloud, project.recipe.source))
    read_secrets(cloud, project.recipe, chosen(project.steps, wanted), environ)
    earlier = None
    for one in _earlier(project, cloud):
        why = "--fresh" if fresh else _unfit(one, plan, project)
        if earlier is None and why is None:
            earlier = one
        else:
            for subscriber in subscribers:
                about = one.machine or "what an earlier call has left"
                subscriber(Noted(text=f"{about} goes: {why or 'there is a newer one'}"))
            _end(one, project, cloud, subscribers)
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
        launched_as=launched_as(project),
        ssh=ssh_of(recipe),
    )
    with (
        ExitStack() as ending,
        Journal(path, (*subscribers, tags.hear)) as journal,
        told(journal, stages := Stages(journal, clock), started),
        Scope(journal, CloudRemover(cloud, clock), bake_id=run_id, region=cloud.region) as scope,
    ):
        bucket = recipe.aws.bucket
        upload = BucketUpload(cloud, scope, bucket, run_id, journal.show) if bucket else None
        ending.callback(forget_keys, project.state_dir, run_id)
        keys = keys_file(project.state_dir, run_id)
        there = earlier.machine if earlier else None
        over = ways(cloud, recipe, plan.steps, upload, keys, clock, machine=there)
        ending.enter_context(closing(over))
        if earlier is None:
            machine = _launched(
                project, cloud, plan, scope, run_id, tags, journal, stages, over.builder
            )
        else:
            machine = _taken_up(project, cloud, path, scope, journal)
            tags.renew()
        with stages.run("connect", f"to {machine} over {over.builder.name}"):
            limit_s = recipe.builder.connect_timeout_s
            communicator = over.builder.reach(machine, timeout_s=limit_s, observer=journal.show)
            wait_for_first_boot(communicator, project.lease, journal.show)
        _keep(scope, journal, path)
        on_machine()
        ran, stale = _ran_on(path, machine), not_restarted(path, machine, plan.steps)
        logs = project.state_dir / "logs" / run_id
        yield Bench(
            run_id, machine, cloud, journal, stages, communicator, upload, logs, ran, stale, environ
        )


def _unfit(earlier: _Earlier, plan: Plan, project: Project) -> str | None:
    """Why that call's machine is not gone on with."""
    if earlier.machine is None:
        return "its machine has ended"
    if earlier.started.source_ami != plan.source.id:
        return f"the source image is {plan.source.id} by now"
    if earlier.started.launched_as != launched_as(project):
        return "[source], [builder], [ssh] or [aws] ask for another machine by now"
    return None


def _taken_up(
    project: Project, cloud: Cloud, path: Path, scope: Scope, journal: Journal
) -> InstanceId:
    """The machine of an earlier call, now that nobody else has it. What that call has left besides
    is the scope's.

    Raises: ResourceFailed when it has ended meanwhile.
    """
    remains = Remains(path)
    machine = _running(cloud, remains)
    if machine is None:
        raise ResourceFailed(
            what="the machine", state="gone", reason="another process ended it just now"
        )
    for created in remains.resources.values():
        if created.kind is ResourceKind.OBJECT:
            scope.adopt(created)
    for intent in remains.intents.values():
        scope.adopt_intended(intent)
    admitted = admission(cloud, project.recipe)
    for created in remains.resources.values():
        # This host's address may be another one now.
        if admitted is not None and created.kind is ResourceKind.SECURITY_GROUP:
            admit_alone(cloud, created.id, admitted, journal.show)
    return machine


def _keep(scope: Scope, journal: Journal, path: Path) -> None:
    """All that a machine needs outlives this process, whoever made it."""
    for created in Remains(path).resources.values():
        if created.kind is not ResourceKind.OBJECT and not scope.keep(created.id, KEPT_TO_DEVELOP):
            journal.write(
                Kept(kind=created.kind, id=created.id, region=created.region, why=KEPT_TO_DEVELOP)
            )


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
            timeout_s=recipe.builder.launch_timeout_s,
        )
        return launch(cloud, scope, run_id, wanted, journal.show).id


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
    machine = launched_as(project)
    # What is saved from here on is seen when what runs is done.
    seen = snapshot(watched(project))
    again: Sequence[str] = wanted
    ran: Sequence[str] = wanted
    while True:
        try:
            project = load()
            if launched_as(project) != machine:
                raise UsageError(
                    "[source], [builder], [ssh] or [aws] ask for another machine than this one",
                    hint="amibuild dev --fresh",
                )
            done = bench.run(project, wanted, again=again, rebooted=rebooted)
            ran = [run.step.name for run in done.runs] or ran
            tell(done, of.format(max(clock.now().timestamp() - since, 0.0)))
        except UsageError as error:
            refused(error)
        try:
            save = wait_for_save(
                watched(project), seen, clock=clock, observer=bench.wait, asked=asked
            )
        except Interrupted:
            return
        seen, again = save.files, (wanted or ran) if save.asked else ()
        since = clock.now().timestamp() if save.at is None else save.at
        of = "in {:.1f}s" if save.at is None else "{:.1f}s after the save"


def watched(project: Project) -> tuple[Path, ...]:
    """What a save of has something run again: the recipe, every provisioner and service, and the
    artifacts that are files here."""
    places = Places(project.directory, project.recipe.artifacts.mirror)
    artifacts = (places.file(source) for step in project.steps for source in step.sources)
    return (
        project.path,
        project.directory / "provisioners",
        bundled_provisioners(),
        *(path for path in artifacts if path is not None),
    )
