"""Checks steps again and again on a machine that stays, as soon as they have run there.

The programs that run checks are brought once, and only what differs from then on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from amibuild.communicator.base import CommandResult, Communicator, RemoteJob
from amibuild.library.step import BuildStep, StepFile
from amibuild.verify.bundle import library, packed_checks
from amibuild.verify.report import VerifyReport, could_not_run, kept, parse_report
from amibuild.verify.rerun import MISSING
from amibuild.wait import Observer

NAME = "recheck"


class Rechecks:
    """Of one machine. `logs` is a folder."""

    def __init__(self, communicator: Communicator, logs: Path) -> None:
        self._communicator = communicator
        self._logs = logs
        self._is_there = False

    def run(
        self,
        steps: Sequence[BuildStep],
        restarted: Sequence[str],
        timeout_s: int,
        observer: Observer,
    ) -> VerifyReport:
        """All checks of the steps. The units `restarted` are, and what was enabled since the last
        boot is started, so that the machine is much as after the next one.

        Raises: VerifyFailed when they could not run at all.
        """
        # Where some of a step's checks are for the builder too, they ask which one they are on.
        here = [
            replace(step, facts={**step.facts, "on_builder": True}) if step.builder_checks else step
            for step in steps
        ]
        own = files("amibuild.verify")
        brought = (
            StepFile("rerun.py", own.joinpath("rerun.py").read_bytes()),
            StepFile("steps.tar.xz", packed_checks(here)),
        )
        script = own.joinpath("recheck.sh").read_text()
        environment = {"RESTARTED": " ".join(restarted)}
        result = self._run(script, brought, environment, timeout_s, observer)
        if result.exit_code == MISSING and not result.result:  # a boot took it away
            self._is_there = False
            result = self._run(script, brought, environment, timeout_s, observer)
        if not result.result:
            raise could_not_run("checks", result)
        self._is_there = True
        return parse_report(result.result)

    def _run(
        self,
        script: str,
        brought: tuple[StepFile, ...],
        environment: Mapping[str, str],
        timeout_s: int,
        observer: Observer,
    ) -> CommandResult:
        sent = brought if self._is_there else (*brought, StepFile("lib.tar.xz", library()))
        job = RemoteJob(NAME, script, timeout_s, sent, environment)
        return kept(self._communicator.run(job, observer), self._logs / NAME)
