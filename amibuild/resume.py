"""Takes up a bake that ended early: what it left, and what of its work need not be done again.

All of it is read from the journal, and then looked for in the account: a machine that ended itself
in the meantime can't be gone on with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from amibuild.aws.ec2 import InstanceFacts
from amibuild.aws.session import Cloud
from amibuild.errors import NotFound, PlanError, UsageError
from amibuild.journal import (
    Abandoned,
    BakeStarted,
    Created,
    Found,
    Intended,
    Journal,
    Outcome,
    Remains,
    Removed,
    ResourceKind,
    StepEnded,
    StepRan,
    is_live,
    journal_path,
    read,
)
from amibuild.library.step import StepKind
from amibuild.names import BakeId, InstanceId, Tag, purpose_of
from amibuild.plan import Plan
from amibuild.project import Project
from amibuild.scope import Scope
from amibuild.steps.capture import DEAD, Captured
from amibuild.steps.launch import Purpose
from amibuild.steps.provision import Inventory, StepRun
from amibuild.verify.report import CheckResult

BAKE_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
ALIVE = frozenset({"pending", "running", "stopping", "stopped"})
INVENTORY, AUDIT = "inventory", "audit"
_AUDIT: TypeAdapter[tuple[CheckResult, ...]] = TypeAdapter(tuple[CheckResult, ...])


@dataclass(frozen=True)
class Earlier:
    """The runs of a bake so far. `attempt` counts them; `builder` is None where none lives, and
    `captured` where there is no image that is or may become available.

    `ran` are the steps that ended well on the builder, by name; `found` is what was found there.
    """

    bake_id: BakeId
    attempt: int
    began: datetime
    started: BakeStarted
    resources: tuple[Created, ...]
    intents: tuple[Intended, ...]
    seconds: Mapping[str, float]
    builder: InstanceId | None
    captured: Captured | None
    ran: Mapping[str, StepRan] = field(default_factory=dict)
    found: Mapping[str, str] = field(default_factory=dict)

    def group(self, cloud: Cloud) -> str | None:
        """The security group of the bake, if it is still there."""
        ids = (one.id for one in self.resources if one.kind is ResourceKind.SECURITY_GROUP)
        return next((id_ for id_ in ids if cloud.ec2.security_group_visible(id_)), None)

    def runs(self, plan: Plan) -> dict[str, StepRun]:
        """The steps of the plan that need not run again, by name.

        Raises: PlanError when the plan is not one that the earlier runs began.
        """
        self._same_machine(plan)
        steps = {step.name: step for step in plan.steps}
        for name, ran in self.ran.items():
            if name not in steps:
                self._refuse(f"{name} ran on it, and is no longer among the steps")
            if steps[name].digest != ran.digest:
                self._refuse(f"{name} has changed since it ran there")
        last = max((i for i, step in enumerate(plan.steps) if step.name in self.ran), default=-1)
        sealed = plan.steps[-1].name in self.ran
        for step in plan.steps[: last + 1]:
            # Services stand side by side: one that failed may run after the others.
            if step.name not in self.ran and (sealed or step.kind is not StepKind.SERVICE):
                later = plan.steps[last].name
                self._refuse(f"{step.name} has not ended well there, and {later} has run already")
        return {
            name: StepRun(
                steps[name],
                ran.exit_code,
                ran.seconds,
                Path(ran.log),
                ran.notes,
                ran.installed_bytes,
            )
            for name, ran in self.ran.items()
        }

    def inventory(self) -> Inventory:
        try:
            return Inventory.model_validate_json(self.found.get(INVENTORY, ""))
        except ValidationError as error:
            raise _damaged(self.bake_id) from error

    def audited(self) -> tuple[CheckResult, ...]:
        try:
            return _AUDIT.validate_json(self.found.get(AUDIT, "[]"))
        except ValidationError as error:
            raise _damaged(self.bake_id) from error

    def _same_machine(self, plan: Plan) -> None:
        for what, now, then in (
            ("[source]", plan.source.reference, self.started.source_reference),
            ("builder.volume_gib", plan.volume_gib, self.started.volume_gib),
            ("aws.kms_key", plan.kms_key, self.started.kms_key),
        ):
            if now != then:
                self._refuse(f"{what} was {then} when it was launched, and is {now}")

    def _refuse(self, why: str) -> None:
        of = self.builder or (self.captured.image_id if self.captured else "the builder")
        raise PlanError(
            f"bake {self.bake_id} can't go on with {of}: {why}",
            hint="undo that change, or bake anew without --resume",
        )


def audit_json(audited: tuple[CheckResult, ...]) -> str:
    return _AUDIT.dump_json(audited).decode()


def _damaged(bake_id: str) -> PlanError:
    return PlanError(
        f"the journal of bake {bake_id} is damaged", hint="bake anew, without --resume"
    )


def take_up(project: Project, cloud: Cloud, target: str, bake_id: str) -> Earlier:
    """What that bake left, as the journal and the account say now.

    Raises: UsageError when there is nothing to go on with.
    """
    path = journal_path(project.state_dir, bake_id)
    if not BAKE_ID.fullmatch(bake_id) or not path.is_file():
        known = [one.stem for one in sorted(path.parent.glob("*.jsonl"))]
        raise UsageError(
            f"there is no bake {bake_id} in {path.parent}",
            hint=f"the newest is {known[-1]}" if known else None,
        )
    if is_live(path):
        raise UsageError(f"bake {bake_id} is running")
    remains = Remains(path)
    started, ended = remains.started, remains.ended
    if started is None:
        raise _damaged(bake_id)
    for what, there, here in (
        ("target", started.target, target),
        ("region", started.region, cloud.region),
        ("image", started.image, project.recipe.image.name),
    ):
        if there != here:
            raise UsageError(f"bake {bake_id} has the {what} {there}, and this one {here}")
    if ended is not None and ended.outcome is Outcome.DONE:
        raise UsageError(f"bake {bake_id} has ended well: nothing is left to do")
    events = list(read(path))
    resources = tuple(remains.resources.values())
    facts = _builder(cloud, resources)
    builder = facts.id if facts else None
    captured = _captured(cloud, resources)
    begun = {one.kind for one in resources} | {one.kind for one in remains.intents.values()}
    if facts and facts.is_spot and captured is None and ResourceKind.IMAGE in begun:
        raise UsageError(
            f"bake {bake_id}'s builder {builder} may have booted again since it was sealed: "
            "that is how a spot machine is captured",
            hint="bake anew, without --resume",
        )
    if builder is None and captured is None:
        raise UsageError(
            f"bake {bake_id} has left no builder to go on with",
            hint="--on-error keep leaves it for a look and for --resume; bake anew",
        )
    # An image came of the machine that was sealed last, which may be gone by now.
    machine = builder or next((e.machine for e in reversed(events) if isinstance(e, StepRan)), "")
    starts = [event for event in events if isinstance(event, BakeStarted)]
    return Earlier(
        bake_id=BakeId(bake_id),
        attempt=len(starts),
        began=starts[0].at,
        started=started,
        resources=resources,
        intents=tuple(remains.intents.values()),
        seconds={e.step: e.seconds for e in events if isinstance(e, StepEnded)},
        builder=builder,
        captured=captured,
        ran={e.step: e for e in events if isinstance(e, StepRan) and e.machine == machine},
        found={e.what: e.body for e in events if isinstance(e, Found) and e.machine == machine},
    )


def own_again(earlier: Earlier, scope: Scope, journal: Journal) -> None:
    """All that the earlier runs made, or may have made, is the scope's; their lock is nobody's,
    since this run has taken one of its own."""
    for created in earlier.resources:
        if created.kind is ResourceKind.LOCK:
            journal.write(Removed(kind=created.kind, id=created.id, region=created.region))
        else:
            scope.adopt(created)
    for intent in earlier.intents:
        if intent.kind is ResourceKind.LOCK:
            journal.write(Abandoned(token=intent.token))
        else:
            scope.adopt_intended(intent)


def _builder(cloud: Cloud, resources: tuple[Created, ...]) -> InstanceFacts | None:
    """The newest that lives."""
    for one in reversed(resources):
        if one.kind is ResourceKind.INSTANCE and purpose_of(one.token).startswith(Purpose.BUILD):
            try:
                facts = cloud.ec2.instance(one.id)
            except NotFound:
                continue
            if facts.state in ALIVE:
                return facts
    return None


def _captured(cloud: Cloud, resources: tuple[Created, ...]) -> Captured | None:
    for one in reversed(resources):
        if one.kind is ResourceKind.IMAGE:
            try:
                image = cloud.images.image(one.id)
            except NotFound:
                continue
            if image.state not in DEAD:
                return Captured(image.id, image.name, image.tags.get(Tag.VERSION, ""))
    return None
