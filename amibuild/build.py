"""The middle of a bake: a machine from the source image, provisioned, sealed and stopped.

launch → connect → provision → seal → shut down. What it leaves is a stopped builder, owned by the
bake's scope, and all that is known of what is on its disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from amibuild.aws.ec2 import Network
from amibuild.aws.session import Cloud
from amibuild.communicator.base import Communicator
from amibuild.errors import StepFailed
from amibuild.journal import Journal, Noted
from amibuild.library.step import StepKind
from amibuild.names import BakeId, InstanceId
from amibuild.plan import Plan
from amibuild.recipe.model import Recipe
from amibuild.scope import Scope
from amibuild.secret import Secret
from amibuild.stage import Stages
from amibuild.steps.artifacts import ArtifactSources
from amibuild.steps.connect import wait_for_agent, wait_for_first_boot
from amibuild.steps.console import console_kept
from amibuild.steps.launch import Launch, Purpose, launch, wait_until_running, wait_until_stopped
from amibuild.steps.provision import Inventory, StepRun, run_step, take_inventory
from amibuild.verify.boot import audit
from amibuild.verify.report import CheckResult


@dataclass(frozen=True)
class Order:
    """What shall be built, and with what. `tags` are those of temporary things."""

    plan: Plan
    recipe: Recipe
    networks: Sequence[Network]
    security_group_id: str
    user_data: bytes
    tags: Mapping[str, str]
    connect: Callable[[str], Communicator]
    sources: ArtifactSources
    secrets: Mapping[str, Secret]
    logs: Path
    lease: timedelta


@dataclass(frozen=True)
class Built:
    """A stopped builder. `failed` are services whose steps ended badly, by name; `audited` is what
    was judged of the machine before it was sealed."""

    builder: InstanceId
    runs: tuple[StepRun, ...]
    failed: Mapping[str, StepFailed]
    inventory: Inventory
    audited: tuple[CheckResult, ...]


def build(
    cloud: Cloud, scope: Scope, journal: Journal, stages: Stages, bake_id: BakeId, order: Order
) -> Built:
    """Raises: NoCapacity, StepFailed, CommandFailed, WaitTimeout, ResourceFailed."""
    watch, limits = journal.show, order.recipe.builder
    with stages.run("launch", f"a builder from {order.plan.source.id}"):
        builder = launch(cloud, scope, bake_id, _launch(order))
        wait_until_running(cloud, builder, timeout_s=limits.launch_timeout_s, observer=watch)
    with console_kept(cloud, builder, order.logs / "builder-console.log"):
        with stages.run("connect", f"to {builder} over SSM"):
            wait_for_agent(cloud, builder, timeout_s=limits.connect_timeout_s, observer=watch)
            communicator = order.connect(builder)
            wait_for_first_boot(communicator, order.lease, watch)
        runs, failed = _provision(journal, stages, communicator, order)
        with stages.run("inventory", "what is on the machine now"):
            inventory = take_inventory(communicator, watch)
        *provisioning, seal = order.plan.steps
        audited: tuple[CheckResult, ...] = ()
        if any(step.builder_checks for step in provisioning):
            with stages.run("audit", "what can be judged of it before it is sealed"):
                timeout_s = order.recipe.verify.timeout_s
                audited = audit(communicator, provisioning, order.logs, timeout_s, watch)
        with stages.run(seal.name, seal.purpose):
            runs.append(run_step(communicator, seal, order.logs, watch, secrets=order.secrets))
    with stages.run("shutdown", f"stops {builder}"):
        cloud.ec2.stop_instance(builder)
        wait_until_stopped(cloud, builder, timeout_s=limits.shutdown_timeout_s, observer=watch)
    return Built(builder, tuple(runs), failed, inventory, audited)


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
    )


def _provision(
    journal: Journal, stages: Stages, communicator: Communicator, order: Order
) -> tuple[list[StepRun], dict[str, StepFailed]]:
    """Each step but seal, in order: those that ended well, and the services that did not."""
    runs: list[StepRun] = []
    failed: dict[str, StepFailed] = {}
    for step in order.plan.steps[:-1]:
        try:
            with stages.run(step.name, step.purpose):
                sources = order.sources(step)
                ran = run_step(communicator, step, order.logs, journal.show, sources, order.secrets)
                runs.append(ran)
                for note in ran.notes:
                    journal.write(Noted(text=f"{step.name}: {note}"))
        except StepFailed as error:
            # Services stand side by side, so the others go on: one bake tells of all that fail.
            # Other steps build on each other.
            if step.kind is not StepKind.SERVICE:
                raise
            failed[step.name] = error
    return runs, failed
