"""A step on a machine of a test, without the rest of a bake."""

from __future__ import annotations

from amibuild.communicator import shell, unit
from amibuild.communicator.base import RemoteJob
from amibuild.communicator.shell import Unit, random_id
from amibuild.library.step import BuildStep


def installing(step: BuildStep) -> str:
    """The bash that a bake sends for it, as one script; its last lines are on stderr."""
    job = RemoteJob(step.name, step.script, step.timeout_s, step.files, step.environment)
    at = Unit(job.name, random_id())
    return unit.start(at, shell.unpack_inline(at, shell.payload(job)), job.timeout_s)
