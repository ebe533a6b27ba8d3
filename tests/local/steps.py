"""A step on a machine of a test, without the rest of a bake."""

from __future__ import annotations

from amibuild.communicator import shell
from amibuild.communicator.base import RemoteJob
from amibuild.library.step import BuildStep


def installing(step: BuildStep) -> str:
    """The bash that a bake sends for it, as one script; its last lines are on stderr."""
    job = RemoteJob(step.name, step.script, step.timeout_s, step.files, step.environment)
    parts = (shell.prepare(job.name), shell.unpack_inline(job.name, shell.payload(job)))
    return "\n".join((*parts, shell.start(job.name)))
