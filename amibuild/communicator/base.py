"""What a bake asks of a machine: run this job, with these files, and bring everything back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from amibuild.errors import CommandFailed
from amibuild.library.step import StepFile
from amibuild.secret import Secret
from amibuild.wait import Observer

M = TypeVar("M", bound=BaseModel)

TAIL_LINES = 20


@dataclass(frozen=True)
class RemoteJob:
    """A bash script that runs as root, as `bash run.sh </dev/null` in a folder with its files.

    What it writes to the file named by $AMIBUILD_RESULT comes back as `result`. A private one
    holds what a command's text, which AWS keeps, should not: it goes by the bucket where one is.
    `secrets` are files below $AMIBUILD_SECRETS while it runs, and never travel in clear; nor do
    those of `closed`, which are there too. A `discreet` one brings none, and may say what others
    were given.
    """

    name: str
    script: str
    timeout_s: int
    files: tuple[StepFile, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    private: bool = False
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    closed: tuple[StepFile, ...] = ()
    discreet: bool = False

    @property
    def brings_secrets(self) -> bool:
        return bool(self.secrets or self.closed)

    @property
    def is_secret(self) -> bool:
        """Whether nobody on the way may read what it says."""
        return self.discreet or self.brings_secrets


@dataclass(frozen=True)
class CommandResult:
    """`log` is stdout and stderr, whole up to 8 MiB, with secrets masked; `result` what it handed
    back, as it came."""

    exit_code: int
    log: str
    result: bytes
    elapsed_s: float

    @property
    def tail(self) -> tuple[str, ...]:
        return tuple(self.log.splitlines()[-TAIL_LINES:])


Ending = Callable[[Observer], CommandResult]
"""Waits for a job that was started to end, whatever its exit code, and brings everything back.

Raises: CommandFailed when it did not end by itself (time-out, cancelled, machine gone).
"""


class Communicator(Protocol):
    def run(self, job: RemoteJob, observer: Observer) -> CommandResult:
        """Runs the job to its end, and raises, like an Ending."""

    def started(self, job: RemoteJob, observer: Observer) -> AbstractContextManager[Ending]:
        """A job that goes on beside others. It is cancelled if the block ends before it."""


class Discreet:
    """The same machine once it was given secrets: what any job says there comes back closed."""

    def __init__(self, communicator: Communicator) -> None:
        self._communicator = communicator

    def run(self, job: RemoteJob, observer: Observer) -> CommandResult:
        return self._communicator.run(replace(job, discreet=True), observer)

    def started(self, job: RemoteJob, observer: Observer) -> AbstractContextManager[Ending]:
        return self._communicator.started(replace(job, discreet=True), observer)


def check(what: str, result: CommandResult) -> CommandResult:
    """The result, if its exit code is 0. Raises: CommandFailed, with the end of the log."""
    if result.exit_code != 0:
        raise CommandFailed(
            what=what,
            exit_code=result.exit_code,
            reason=f"ended with exit code {result.exit_code}",
            tail=result.tail,
        )
    return result


def handed_back(what: str, result: CommandResult, model: type[M]) -> M:
    """The JSON that a job handed back. Raises: CommandFailed when it is anything else."""
    try:
        return model.model_validate_json(result.result)
    except ValidationError as error:
        raise CommandFailed(
            what=what,
            exit_code=result.exit_code,
            reason=f"what the machine handed back can't be read: {first_problem(error)}",
            tail=result.tail,
        ) from error


def first_problem(error: ValidationError) -> str:
    """Where and what, in a line: what was sent is not in it, and may be long."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]
