"""Takes up a bake that ended early: what it left, and what of its work need not be done again.

All of it is read from the journal, and then looked for in the account: a machine that ended itself
in the meantime can't be gone on with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
    Event,
    Found,
    Given,
    Intended,
    Journal,
    JournalBusy,
    Outcome,
    Remains,
    Removed,
    ResourceKind,
    StepEnded,
    StepRan,
    StepStarted,
    Subscriber,
    is_live,
    journal_path,
    read,
)
from amibuild.library.load import SEAL
from amibuild.library.step import StepKind
from amibuild.names import BakeId, InstanceId, Tag, purpose_of
from amibuild.plan import Plan
from amibuild.project import Project
from amibuild.recipe.ssh import Ssh
from amibuild.scope import Scope
from amibuild.secret import Secret
from amibuild.steps.capture import DEAD, Captured
from amibuild.steps.launch import Purpose
from amibuild.steps.provision import Inventory, StepRun
from amibuild.steps.reach import ssh_of
from amibuild.verify.report import CheckResult

BAKE_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
ALIVE = frozenset({"pending", "running", "stopping", "stopped"})
# What a bake goes through besides its steps.
STAGES = frozenset(
    {
        *("preflight", "access", "launch", "connect", "inventory", "audit"),
        *("shutdown", "capture", "verify", "distribute", "record"),
    }
)
# What a machine over SSH was launched for: by these it takes whoever comes. The way there may be
# another one by now.
KNOWN_THERE = ("user", "port", "private_key", "certificate", "agent")
INVENTORY, AUDIT = "inventory", "audit"
_AUDIT: TypeAdapter[tuple[CheckResult, ...]] = TypeAdapter(tuple[CheckResult, ...])


@dataclass(frozen=True)
class Earlier:
    """The runs of a bake so far. `attempt` counts them; `builder` is None where none lives, and
    `captured` where there is no image that is or may become available.

    `ran` are the steps that ended well on the builder, by name and in their order; `given` are
    the secrets that steps had there, and `found` is what was found. `began_steps` are all that
    began on any builder of it. `events` says how long the journal was when it was read.
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
    given: tuple[Given, ...] = ()
    found: Mapping[str, str] = field(default_factory=dict)
    began_steps: tuple[str, ...] = ()
    events: int = 0

    @property
    def machine(self) -> InstanceId | None:
        """The builder, where it is gone on with: not where there is an image of it."""
        return None if self.captured else self.builder

    def same_way(self, now: Ssh | None) -> None:
        """Raises: PlanError when the recipe comes to the builder in a way that it does not take."""
        then = self.started.ssh
        if self.machine is None or (now is None and then is None):
            return
        if now is None or then is None:
            was, is_ = ("ssm", "ssh") if then is None else ("ssh", "ssm")
            self._refuse(f"builder.communicator was {was} when it was launched, and is {is_}")
        for name in KNOWN_THERE:
            before, here = getattr(then, name), getattr(now, name)
            if before != here:
                self._refuse(f"ssh.{name} was {before} when it was launched, and is {here}")

    def group(self, cloud: Cloud, vpc_id: str) -> str | None:
        """The security group of the bake, if it is still there and machines go to its network."""
        ids = (one.id for one in self.resources if one.kind is ResourceKind.SECURITY_GROUP)
        return next((id_ for id_ in ids if cloud.ec2.security_group_vpc(id_) == vpc_id), None)

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
        for name in self.began_steps:
            if name not in steps:
                self._refuse(f"{name} began there, and is no longer among the steps")
        self._same_order(plan)
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

    def same_secrets(self, secrets: Mapping[str, Secret]) -> None:
        """What a step was given is looked for on the finished disk, so it must be known still.

        Raises: PlanError.
        """
        for given in self.given:
            for name, was in given.secrets.items():
                if name not in secrets:
                    self._refuse(f"{given.step} had the secret {name} there, and no step reads it")
                if secrets[name].fingerprint(self.bake_id) != was:
                    self._refuse(f"the secret {name} has another value since {given.step} had it")

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

    def _same_order(self, plan: Plan) -> None:
        """Services stand side by side; the other steps build on each other."""
        ordered = [s.name for s in plan.steps if s.kind is not StepKind.SERVICE]
        now = [name for name in ordered if name in self.ran]
        then = [name for name in self.ran if name in now]
        if now != then:
            self._refuse(f"there the order was {', '.join(then)}")

    def _same_machine(self, plan: Plan) -> None:
        if not self.started.source_reference:
            self._refuse("an older version of amibuild began it")
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


def journal_file(state_dir: Path, bake_id: str) -> Path:
    """Raises: UsageError when there is none."""
    if not BAKE_ID.fullmatch(bake_id):
        raise UsageError(
            f"{bake_id!r} is no bake's id", hint="it looks like 20261122-101500-a1b2c3"
        )
    path = journal_path(state_dir, bake_id)
    if not path.is_file():
        known = [one.stem for one in sorted(path.parent.glob("*.jsonl"))]
        raise UsageError(
            f"there is no bake {bake_id} in {path.parent}",
            hint=f"the newest is {known[-1]}" if known else None,
        )
    return path


def take_up(project: Project, cloud: Cloud, target: str, bake_id: str) -> Earlier:
    """What that bake left, as the journal and the account say now.

    Raises: UsageError when there is nothing to go on with; PlanError when its builder is reached
    in another way than the recipe's.
    """
    path = journal_file(project.state_dir, bake_id)
    if is_live(path):
        raise JournalBusy(bake_id)
    remains = Remains(path)
    started, ended = remains.started, remains.ended
    if started is None:
        raise _damaged(bake_id)
    if started.flow != "bake":
        raise UsageError(f"{bake_id} is no bake, but `amibuild {started.flow}`")
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
    resources = (*remains.resources.values(), *_images_intended(cloud, remains))
    facts = living(cloud, resources, Purpose.BUILD)
    builder = facts.id if facts else None
    # An image came of the machine that was sealed last, which may be gone by now.
    last = next((e for e in reversed(events) if isinstance(e, StepRan)), None)
    machine = builder or (last.machine if last else "")
    captured = _captured(cloud, resources, last.at if last and last.machine == machine else None)
    ran = {e.step: e for e in events if isinstance(e, StepRan) and e.machine == machine}
    if facts is not None and captured is None:
        _refuse_restarted(bake_id, facts, events, ran)
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
    starts = [event for event in events if isinstance(event, BakeStarted)]
    earlier = Earlier(
        bake_id=BakeId(bake_id),
        attempt=len(starts),
        began=starts[0].at,
        started=started,
        resources=resources,
        intents=tuple(remains.intents.values()),
        seconds={e.step: e.seconds for e in events if isinstance(e, StepEnded)},
        builder=builder,
        captured=captured,
        ran=ran,
        given=tuple(e for e in events if isinstance(e, Given) and e.machine == machine),
        found={e.what: e.body for e in events if isinstance(e, Found) and e.machine == machine},
        began_steps=tuple(
            e.step for e in events if isinstance(e, StepStarted) and e.step not in STAGES
        ),
        events=len(events),
    )
    earlier.same_way(ssh_of(project.recipe))
    return earlier


def journal_of(path: Path, subscribers: tuple[Subscriber, ...], earlier: Earlier | None) -> Journal:
    """The bake's journal, for this process alone.

    Raises: JournalBusy, also when another process had it since the earlier runs were read.
    """
    journal = Journal(path, subscribers)
    if earlier is not None and len(list(read(path))) != earlier.events:
        journal.close()
        raise JournalBusy(earlier.bake_id)
    return journal


def own_again(earlier: Earlier, scope: Scope, journal: Journal) -> None:
    """All that the earlier runs made, or may have made, is the scope's; their lock is nobody's,
    since this run has taken one of its own."""
    for created in earlier.resources:
        if created.kind is ResourceKind.LOCK:
            journal.write(Removed(kind=created.kind, id=created.id, region=created.region))
        else:
            scope.adopt(created)
    known = {created.token for created in earlier.resources}
    for intent in earlier.intents:
        if intent.token in known:
            continue
        if intent.kind is ResourceKind.LOCK:
            journal.write(Abandoned(token=intent.token))
        else:
            scope.adopt_intended(intent)


def living(cloud: Cloud, resources: Sequence[Created], purpose: Purpose) -> InstanceFacts | None:
    """The newest machine of that purpose that lives."""
    for one in reversed(resources):
        if one.kind is ResourceKind.INSTANCE and purpose_of(one.token).startswith(purpose):
            try:
                facts = cloud.ec2.instance(one.id)
            except NotFound:
                continue
            if facts.state in ALIVE:
                return facts
    return None


def _images_intended(cloud: Cloud, remains: Remains) -> list[Created]:
    """Images whose call was made, and whose id never came to the journal."""
    return [
        Created(kind=intent.kind, id=image.id, token=token, region=intent.region)
        for token, intent in remains.intents.items()
        if intent.kind is ResourceKind.IMAGE
        for image in cloud.images.search(owners=["self"], filters={f"tag:{Tag.TOKEN}": [token]})
    ]


def _captured(
    cloud: Cloud, resources: tuple[Created, ...], sealed: datetime | None
) -> Captured | None:
    """The image of the machine whose last step ended at `sealed`.

    Raises: UsageError when it is proven: then it is a result, and may be in use.
    """
    for one in reversed(resources):
        if one.kind is not ResourceKind.IMAGE:
            continue
        try:
            image = cloud.images.image(one.id)
        except NotFound:
            continue
        if image.tags.get(Tag.VERIFIED) == "passed" and Tag.EXPIRES not in image.tags:
            raise UsageError(
                f"the bake has made {image.id}, which is proven: nothing is left to do",
                hint="`amibuild bake --if-changed` hands it over; `amibuild reap` removes the rest",
            )
        if image.state not in DEAD and sealed is not None and one.at > sealed:
            return Captured(image.id, image.name, image.tags.get(Tag.VERSION, ""))
    return None


def _refuse_restarted(
    bake_id: str, facts: InstanceFacts, events: list[Event], ran: Mapping[str, StepRan]
) -> None:
    """A builder that somebody stopped, or started once it was sealed and stopped.

    Raises: UsageError.
    """
    ended = [e.step for e in events if isinstance(e, StepEnded)]
    sealed = SEAL in ran
    if not sealed and facts.state in {"stopping", "stopped"}:
        raise UsageError(
            f"bake {bake_id}'s builder {facts.id} is {facts.state}, and has steps to run",
            hint=f"start it first: aws ec2 start-instances --instance-ids {facts.id}",
        )
    if sealed and "shutdown" in ended and facts.state in {"pending", "running"}:
        raise UsageError(
            f"bake {bake_id}'s builder {facts.id} was started again since it was sealed",
            hint="bake anew, without --resume",
        )
