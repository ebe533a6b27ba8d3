"""What runs on a machine that stays: steps that are new or have changed, and then their checks."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from amibuild.attended import SUSTAIN_S, still_there
from amibuild.aws.session import Cloud
from amibuild.communicator.base import Communicator
from amibuild.errors import (
    AmibuildError,
    CommandFailed,
    HostError,
    Throttled,
    UsageError,
    VerifyFailed,
    WaitTimeout,
)
from amibuild.journal import Journal, Noted, StepRan
from amibuild.library.step import BuildStep, StepKind
from amibuild.names import BakeId, InstanceId
from amibuild.project import Project
from amibuild.recipe.document import did_you_mean
from amibuild.secret import Secret
from amibuild.stage import Stages
from amibuild.steps.artifacts import ArtifactSources, Places
from amibuild.steps.connect import wait_for_first_boot
from amibuild.steps.provision import StepRun, run_step
from amibuild.steps.reboot import reboot
from amibuild.steps.secrets import read_secrets
from amibuild.steps.upload import BucketUpload
from amibuild.verify.recheck import Rechecks
from amibuild.verify.report import CheckResult
from amibuild.wait import Waiting

CHECKS = "checks"


@dataclass(frozen=True)
class Round:
    """What one save, or the begin, has run: steps, and then the checks of those that were meant.

    `error` is why a step did not end well, or the checks could not run. `failed` are the checks
    that did not pass.
    """

    runs: tuple[StepRun, ...]
    checks: tuple[CheckResult, ...]
    error: AmibuildError | None = None

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        return tuple(check for check in self.checks if check.failed)


class Bench:
    """The machine, and what has run on it. Made by `opened`."""

    def __init__(
        self,
        bake_id: BakeId,
        machine: InstanceId,
        cloud: Cloud,
        journal: Journal,
        stages: Stages,
        communicator: Communicator,
        upload: BucketUpload | None,
        logs: Path,
        ran: Mapping[str, str],
        not_restarted: Collection[str],
        environ: Mapping[str, str],
    ) -> None:
        self.bake_id = bake_id
        self.machine = machine
        self.communicator = communicator
        self._cloud = cloud
        self._journal = journal
        self._stages = stages
        self._upload = upload
        self._logs = logs
        self._ran = dict(ran)
        self._checked: dict[str, str] = {}
        self._restarted = set(not_restarted)
        self._environ = environ
        self._sustained_s = 0.0
        self._checks = Rechecks(communicator, logs)

    def wait(self, waiting: Waiting) -> None:
        """Time passes: what is here keeps its lease, and the machine, which ends for want of work,
        hears a job now and then."""
        self._journal.show(waiting)
        if waiting.elapsed_s < self._sustained_s:  # another wait
            self._sustained_s = 0.0
        if waiting.elapsed_s - self._sustained_s >= SUSTAIN_S:
            self._sustained_s = waiting.elapsed_s
            still_there(self.communicator, self.machine)

    def run(
        self,
        project: Project,
        wanted: Sequence[str],
        *,
        again: Collection[str] = (),
        rebooted: bool = False,
    ) -> Round:
        """Runs what is new or has changed, and `again` what has not; then the checks of those that
        are `wanted`, or all without any: the ones that have not passed since anything of them was
        run or saved. With `rebooted` the machine boots in between.

        Raises: UsageError for a step that is none, or a secret that can't be had; what a machine
        raises that is not there any more.
        """
        steps = chosen(project.steps, wanted)
        due = [s for s in steps if s.name in again or self._ran.get(s.name) != s.digest]
        secrets = read_secrets(self._cloud, project.recipe, due, self._environ)
        runs: list[StepRun] = []
        try:
            for step in due:
                runs.append(self._step(project, step, secrets))
            if due and wanted:  # they build on what ran
                for name in wanted:
                    self._checked.pop(name, None)
            checked = [
                step
                for step in steps
                if step.checks
                and (not wanted or step.name in wanted)
                and self._checked.get(step.name) != _checks_of(step)
            ]
            return Round(tuple(runs), self._check(project, checked, rebooted) if checked else ())
        except (CommandFailed, HostError, Throttled, VerifyFailed, WaitTimeout) as error:
            return Round(tuple(runs), (), error)

    def _check(
        self, project: Project, steps: Sequence[BuildStep], rebooted: bool
    ) -> tuple[CheckResult, ...]:
        if rebooted:
            self._boot(project)
        timeout_s = project.recipe.verify.timeout_s
        with self._stages.run(CHECKS, f"of {', '.join(step.name for step in steps)}"):
            report = self._checks.run(steps, sorted(self._restarted), timeout_s, self._journal.show)
        self._restarted.clear()
        bad = {check.step for check in report.checks if check.failed}
        for step in steps:
            self._checked.pop(step.name, None)
            if step.name not in bad:
                self._checked[step.name] = _checks_of(step)
        return report.checks

    def _step(self, project: Project, step: BuildStep, secrets: Mapping[str, Secret]) -> StepRun:
        places = Places(project.directory, project.recipe.artifacts.mirror)
        sources = ArtifactSources(self._cloud, places, self._upload)
        # From here on the machine has neither what it had nor what it is to have.
        self._ran.pop(step.name, None)
        self._checked.pop(step.name, None)
        with self._stages.run(step.name, step.purpose):
            ran = run_step(
                self.communicator, step, self._logs, self._journal.show, sources(step), secrets
            )
            if step.reboots:
                self._boot(project)
        for note in ran.notes:
            self._journal.write(Noted(text=f"{step.name}: {note}"))
        self._journal.write(
            StepRan(
                machine=self.machine,
                step=step.name,
                digest=step.digest,
                exit_code=ran.exit_code,
                seconds=ran.seconds,
                log=str(ran.log),
            )
        )
        self._ran[step.name] = step.digest
        if step.kind is StepKind.SERVICE:
            self._restarted.add(step.facts["unit"])
        return ran

    def _boot(self, project: Project) -> None:
        timeout_s = project.recipe.builder.connect_timeout_s
        reboot(self.communicator, timeout_s=timeout_s, observer=self._journal.show)
        wait_for_first_boot(self.communicator, project.lease, self._journal.show)
        self._restarted.clear()


def chosen(steps: Sequence[BuildStep], wanted: Sequence[str]) -> list[BuildStep]:
    """The steps that are wanted, and those before them that they build on; all without any wanted.
    Services stand side by side, and seal has nothing to seal here.

    Raises: UsageError for a name that is none of a step.
    """
    there = steps[:-1]
    known = [step.name for step in there]
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"there is no step {name} to run on a machine that stays",
                hint=did_you_mean(name, known) or f"there is {', '.join(known)}",
            )
    last = max((known.index(name) for name in wanted), default=len(there))
    return [
        step
        for index, step in enumerate(there)
        if not wanted or step.name in wanted or (index < last and step.kind is not StepKind.SERVICE)
    ]


def _checks_of(step: BuildStep) -> str:
    facts = repr(sorted((check.path, check.sha256) for check in step.checks))
    return hashlib.sha256(f"{facts}{sorted(step.facts.items())!r}".encode()).hexdigest()
