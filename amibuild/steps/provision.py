"""Runs the plan's build steps on the builder, one after the other, and takes stock before seal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from amibuild.communicator.base import Communicator, RemoteJob, check, handed_back
from amibuild.errors import CommandFailed, StepFailed
from amibuild.files import write_atomically
from amibuild.library.step import BuildStep, StepFile, StepKind
from amibuild.outputs.manifest import Boot
from amibuild.secret import Secret, masked
from amibuild.steps.hints import hint_for
from amibuild.wait import Observer


@dataclass(frozen=True)
class StepRun:
    """One step that ended well. `log` is the file that holds all of its output.

    `notes` are the lines that it wrote to $AMIBUILD_RESULT: what it wants known of the image, such
    as something that it would install and could not have. `installed_bytes` is what a service's
    step says that the disk holds more since.
    """

    step: BuildStep
    exit_code: int
    seconds: float
    log: Path
    notes: tuple[str, ...] = ()
    installed_bytes: int | None = None


class Installed(BaseModel):
    """What every_service/run.sh hands back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    installed_bytes: int


class Inventory(BaseModel):
    """What inventory.sh found on the builder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    packages: dict[str, str]
    platform_packages: list[str]
    units_enabled: list[str]
    users: list[str]
    root_used_bytes: int
    boot: Boot | None


def run_step(
    communicator: Communicator,
    step: BuildStep,
    logs: Path,
    observer: Observer,
    sources: tuple[StepFile, ...] = (),
    secrets: Mapping[str, Secret] | None = None,
) -> StepRun:
    """One step, to its end; its whole log is in `logs` also when it failed.

    `sources` travel with it and are recorded nowhere: they may hold addresses that grant access.
    `secrets` are those of the whole bake: the step gets what it names.

    Raises: StepFailed when its script ends badly, with the end of the log and where the rest is;
    CommandFailed when it never came to its end.
    """
    job = RemoteJob(
        step.name,
        step.script,
        step.timeout_s,
        (*step.files, *sources),
        step.environment,
        private=bool(sources),
        secrets={name: (secrets or {})[name] for name in step.secrets},
    )
    log = logs / f"{step.name}.log"
    try:
        result = communicator.run(job, observer)
        write_atomically(log, result.log)
        if result.exit_code != 0:
            raise StepFailed(
                what=step.name,
                exit_code=result.exit_code,
                reason=f"ended with exit code {result.exit_code}",
                tail=result.tail,
                log=log,
            )
    except CommandFailed as error:
        error.hint = error.hint or hint_for(error)
        raise
    notes: tuple[str, ...] = ()
    size = None
    if step.kind is not StepKind.SERVICE:
        said = masked(result.result.decode(errors="replace")).splitlines()
        notes = tuple(line for line in map(str.strip, said) if line)
    elif result.result:
        size = handed_back(step.name, result, Installed).installed_bytes
    return StepRun(step, result.exit_code, result.elapsed_s, log, notes, size)


def take_inventory(communicator: Communicator, observer: Observer) -> Inventory:
    """Raises: CommandFailed, also when the machine answers something else."""
    script = files("amibuild.steps").joinpath("inventory.sh").read_text()
    result = communicator.run(RemoteJob("inventory", script, timeout_s=300), observer)
    return handed_back("the inventory", check("the inventory", result), Inventory)
