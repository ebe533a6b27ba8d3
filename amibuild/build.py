"""The middle of a bake: a machine from the source image, and an image of it once it is sealed.

launch → connect → provision → seal → shut down → capture. What it makes is the scope's.
The journal learns what a resumed bake needs. A spot builder can't be stopped (EC2 user guide, "Stop
a Spot Instance"): it is shut down by the call that captures it, and boots again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from amibuild.attended import Attended
from amibuild.aws.ec2 import Network, Spot
from amibuild.aws.images import Image
from amibuild.aws.session import Cloud
from amibuild.communicator.base import Communicator, Discreet
from amibuild.errors import AmibuildError, StepFailed, TakenBack, WaitTimeout
from amibuild.journal import Found, Given, Journal, Noted, StepRan
from amibuild.library.step import BuildStep, StepKind
from amibuild.names import BakeId, InstanceId, Tag
from amibuild.plan import Plan
from amibuild.recipe.model import Recipe
from amibuild.resume import AUDIT, INVENTORY, Earlier, audit_json
from amibuild.scope import Scope
from amibuild.secret import Secret
from amibuild.stage import Stages
from amibuild.steps.artifacts import ArtifactSources
from amibuild.steps.capture import Captured, capture, wait_until_available
from amibuild.steps.connect import wait_for_first_boot
from amibuild.steps.console import console_kept
from amibuild.steps.launch import Launch, Purpose, wait_until_running, wait_until_stopped
from amibuild.steps.provision import Inventory, StepRun, run_step, take_inventory
from amibuild.steps.reach import Way
from amibuild.steps.reboot import NOTE, reboot
from amibuild.steps.spot import LossWatch, launch_builder, loss_told
from amibuild.verify.boot import audit
from amibuild.verify.report import CheckResult
from amibuild.wait import Observer


@dataclass(frozen=True)
class Order:
    """What shall be built, and with what. `tags` are those of temporary things.

    `earlier` is there when a bake is resumed: its builder is gone on with. With `kept_when_failed`
    a service that failed ends the build before the seal: a sealed machine can't be mended. `spot`
    is None for a builder on demand.
    """

    plan: Plan
    recipe: Recipe
    networks: Sequence[Network]
    security_group_id: str
    user_data: bytes
    tags: Mapping[str, str]
    way: Way
    sources: ArtifactSources
    secrets: Mapping[str, Secret]
    logs: Path
    lease: timedelta
    kept_when_failed: bool = False
    earlier: Earlier | None = None
    spot: Spot | None = None
    attended: Attended = field(default_factory=Attended)

    @property
    def may_be_on_spot(self) -> bool:
        """An earlier run may have had another recipe."""
        return self.spot is not None or self.earlier is not None

    def needing(
        self, cloud: Cloud, builder: InstanceId | None, *no_loss: type[AmibuildError]
    ) -> AbstractContextManager[None]:
        """Around what needs the builder. Raises: TakenBack, but for the errors of `no_loss`."""
        if builder is None or not self.may_be_on_spot:
            return nullcontext()
        return loss_told(cloud, builder, no_loss)


@dataclass(frozen=True)
class Built:
    """A sealed builder. `failed` are services whose steps ended badly, by name; `audited` is what
    was judged of the machine before it was sealed. `builder` is None when an image was made of it
    before and it is gone."""

    builder: InstanceId | None
    runs: tuple[StepRun, ...]
    failed: Mapping[str, StepFailed]
    inventory: Inventory
    audited: tuple[CheckResult, ...]


def build(
    cloud: Cloud, scope: Scope, journal: Journal, stages: Stages, bake_id: BakeId, order: Order
) -> Built:
    """A builder that runs and is sealed.

    Raises: NoCapacity, StepFailed, CommandFailed, WaitTimeout, ResourceFailed, TakenBack; PlanError
    when the plan is not one that the earlier runs began.
    """
    limits, earlier = order.recipe.builder, order.earlier
    taken = earlier.builder if earlier else None
    done = earlier.runs(order.plan) if earlier else {}
    what = f"takes up {taken}" if taken else f"a builder from {order.plan.source.id}"
    with stages.run("launch", what):
        builder = taken or launch_builder(cloud, scope, journal, bake_id, _launch(order))
        watch = LossWatch(cloud, builder, journal.show) if order.may_be_on_spot else journal.show
        if taken is not None:
            with order.needing(cloud, taken):
                wait_until_running(cloud, taken, timeout_s=limits.launch_timeout_s, observer=watch)
    console = order.logs / "builder-console.log"
    with order.needing(cloud, builder), console_kept(cloud, builder, console):
        with stages.run("connect", f"to {builder} over {order.way.name}"):
            communicator = order.way.reach(
                builder, timeout_s=limits.connect_timeout_s, observer=watch
            )
            wait_for_first_boot(communicator, order.lease, watch)
        order.attended.sustained = communicator
        runs = _Runs(bake_id, journal, builder, done)
        failed = _provision(cloud, stages, communicator, order, runs, watch)
        if order.secrets:
            communicator = Discreet(communicator)
        if failed and order.kept_when_failed:
            raise _first_of(failed)
        *provisioning, seal = order.plan.steps
        with stages.run("inventory", "what is on the machine now"):
            inventory = take_inventory(communicator, watch)
            journal.write(Found(machine=builder, what=INVENTORY, body=inventory.model_dump_json()))
        audited: tuple[CheckResult, ...] = ()
        if any(step.builder_checks for step in provisioning):
            with stages.run("audit", "what can be judged of it before it is sealed"):
                timeout_s = order.recipe.verify.timeout_s
                audited = audit(communicator, provisioning, order.logs, timeout_s, watch)
                journal.write(Found(machine=builder, what=AUDIT, body=audit_json(audited)))
        _run(cloud, stages, communicator, order, runs, watch, seal)
        order.attended.sustained = None
    return Built(builder, runs.all, failed, inventory, audited)


def built_before(earlier: Earlier, plan: Plan) -> Built | None:
    """What the earlier runs of a bake made, where they came as far as the seal.

    Raises: PlanError when the plan is not one that they began.
    """
    done = earlier.runs(plan)
    if plan.steps[-1].name not in done:
        return None
    runs = tuple(done[step.name] for step in plan.steps)
    return Built(earlier.builder, runs, {}, earlier.inventory(), earlier.audited())


def make_image(
    cloud: Cloud,
    scope: Scope,
    journal: Journal,
    stages: Stages,
    bake_id: BakeId,
    order: Order,
    built: Built,
    commit: str,
) -> tuple[Captured, Image]:
    """The image of a builder, which is stopped for it; one that was begun before is waited for.

    Raises: ResourceFailed; TakenBack, and then there is no image; WaitTimeout. When the image is
    what takes too long, all stays as it is.
    """
    builder, limits, watch = built.builder, order.recipe.builder, journal.show
    taken = order.earlier.captured if order.earlier else None
    if builder is None or taken is not None:
        stopped = True
    elif order.may_be_on_spot and cloud.ec2.instance(builder).is_spot:
        stopped = False
    else:
        stopped = True
        with stages.run("shutdown", f"stops {builder}"):
            cloud.ec2.stop_instance(builder)
            wait_until_stopped(cloud, builder, timeout_s=limits.shutdown_timeout_s, observer=watch)
    with stages.run("capture", taken.image_id if taken else f"an image of {builder}"):
        with order.needing(cloud, builder):
            captured = taken or _capture(cloud, scope, order, builder or "", commit, stopped)
        journal.write(Noted(text=f"{captured.image_id} will be {captured.name}"))
        try:
            # One that is late is no loss, whatever has become of the machine.
            with order.needing(cloud, builder, WaitTimeout):
                image = wait_until_available(
                    cloud, captured.image_id, timeout_s=limits.capture_timeout_s, observer=watch
                )
        except TakenBack:
            scope.remove(captured.image_id)
            raise
        except WaitTimeout as error:
            # EC2 goes on with it, and may need the rest of an hour only.
            scope.leave_all(error)
            error.hint = f"`--resume {bake_id}` goes on waiting for it"
            raise
        if builder is not None:
            scope.begin_removal(builder)
    return captured, image


def _capture(
    cloud: Cloud, scope: Scope, order: Order, builder: str, commit: str, stopped: bool
) -> Captured:
    plan = order.plan
    # The date goes when the image is verified: until then it is temporary, like the rest.
    marks = {**order.tags, Tag.DIGEST: plan.digest, Tag.SOURCE_AMI: plan.source.id}
    if commit:
        marks[Tag.COMMIT] = commit
    about = order.recipe.image.description
    return capture(cloud, scope, builder, plan.image, about, marks, stopped=stopped)


class _Runs:
    """The steps that have ended well on this builder, in order; the journal learns of each."""

    def __init__(
        self,
        bake_id: BakeId,
        journal: Journal,
        builder: InstanceId,
        before: Mapping[str, StepRun],
    ) -> None:
        self._bake_id = bake_id
        self._journal = journal
        self.builder = builder
        self._before = before
        self._all: list[StepRun] = []

    @property
    def all(self) -> tuple[StepRun, ...]:
        return tuple(self._all)

    def had(self, name: str) -> bool:
        """Whether an earlier run of the bake did that step, which is then taken over."""
        if name not in self._before:
            return False
        self._all.append(self._before[name])
        return True

    def gives(self, step: BuildStep, secrets: Mapping[str, Secret]) -> None:
        """Before it runs: a value that was there once is looked for on the finished disk."""
        marks = {name: secrets[name].fingerprint(self._bake_id) for name in step.secrets}
        if marks:
            self._journal.write(Given(machine=self.builder, step=step.name, secrets=marks))

    def add(self, ran: StepRun) -> None:
        self._all.append(ran)
        for note in ran.notes:
            self._journal.write(Noted(text=f"{ran.step.name}: {note}"))
        self._journal.write(
            StepRan(
                machine=self.builder,
                step=ran.step.name,
                digest=ran.step.digest,
                exit_code=ran.exit_code,
                seconds=ran.seconds,
                log=str(ran.log),
                notes=ran.notes,
                installed_bytes=ran.installed_bytes,
            )
        )


def _launch(order: Order) -> Launch:
    recipe, source = order.recipe, order.plan.source
    return Launch(
        purpose=Purpose.BUILD,
        image_id=source.id,
        root_device=source.root_device,
        volume_gib=order.plan.volume_gib,
        instance_types=recipe.builder.instance_types,
        networks=order.networks,
        security_group_id=order.security_group_id,
        instance_profile=recipe.aws.instance_profile,
        kms_key=recipe.aws.kms_key,
        public_ip=recipe.aws.public_ip,
        user_data=order.user_data,
        tags=order.tags,
        timeout_s=recipe.builder.launch_timeout_s,
        spot=order.spot,
    )


def _provision(
    cloud: Cloud,
    stages: Stages,
    communicator: Communicator,
    order: Order,
    runs: _Runs,
    watch: Observer,
) -> dict[str, StepFailed]:
    """Each step but seal, in order; the services that did not end well, by name."""
    failed: dict[str, StepFailed] = {}
    for step in order.plan.steps[:-1]:
        if step.secrets and not isinstance(communicator, Discreet):
            communicator = Discreet(communicator)
        if runs.had(step.name):
            continue
        try:
            _run(cloud, stages, communicator, order, runs, watch, step)
        except StepFailed as error:
            # Services stand side by side, so the others go on: one bake tells of all that fail.
            # Other steps build on each other.
            if step.kind is not StepKind.SERVICE or order.attended.has_decided:
                raise
            failed[step.name] = error
    return failed


def _run(
    cloud: Cloud,
    stages: Stages,
    communicator: Communicator,
    order: Order,
    runs: _Runs,
    watch: Observer,
    step: BuildStep,
) -> None:
    def once() -> None:
        # Nobody is asked about a step that failed with its machine.
        with order.needing(cloud, runs.builder), stages.run(step.name, step.purpose):
            sources = order.sources(step)
            runs.gives(step, order.secrets)
            ran = run_step(communicator, step, order.logs, watch, sources, order.secrets)
            if step.reboots:
                timeout_s = order.recipe.builder.connect_timeout_s
                reboot(communicator, timeout_s=timeout_s, observer=watch)
                wait_for_first_boot(communicator, order.lease, watch)
                ran = replace(ran, notes=(*ran.notes, NOTE))
            runs.add(ran)

    order.attended.retried(step.name, once)


def _first_of(failed: Mapping[str, StepFailed]) -> StepFailed:
    first, *others = failed.values()
    for other in others:
        first.add_note(f"{other.message}; its log is {other.log}")
    return first
