"""What a plan makes otherwise than the last image, from that image's manifest. Pure.

Only what a recipe and its files say. Which packages Debian has renewed since is not known before a
machine has asked for them: `summary.py` tells it afterwards, from two manifests.
"""

from __future__ import annotations

from collections.abc import Iterator

from amibuild.library.step import BuildStep
from amibuild.outputs.difference import Changed, changed
from amibuild.outputs.manifest import Manifest, Step, file_record
from amibuild.plan import Plan

# A value that is longer is a text, and its name says enough.
SHOWN = 40
RUN = "run.sh"


def changes(last: Manifest, plan: Plan) -> tuple[str, ...]:
    """A line for each; empty when the plan makes the same image."""
    return tuple(_changes(last, plan)) if last.digest != plan.digest else ()


def _changes(last: Manifest, plan: Plan) -> Iterator[str]:
    told = False
    for line in _of_source_and_steps(last, plan):
        told = True
        yield line
    if last.image.size_gib != plan.volume_gib:
        told = True
        yield f"builder.volume_gib {last.image.size_gib} -> {plan.volume_gib}"
    if not told:
        # What is left of what a digest is made from, and is in no manifest.
        yield "aws.kms_key"


def _of_source_and_steps(last: Manifest, plan: Plan) -> Iterator[str]:
    if last.source.ami_id != plan.source.id:
        name = f" ({plan.source.name})" if plan.source.name else ""
        yield f"source AMI {last.source.ami_id} -> {plan.source.id}{name}"
    before = {step.name: step for step in last.steps}
    after = {step.name: step for step in plan.steps}
    for name in after:
        if name not in before:
            yield f"{name} is new"
        elif before[name].digest != after[name].digest:
            yield from _of_step(before[name], after[name])
    yield from (f"{name} is gone" for name in before if name not in after)
    order = [name for name in before if name in after]
    if order != [name for name in after if name in before]:
        yield f"the order of the steps: {', '.join(after)}"


def _of_step(before: Step, after: BuildStep) -> Iterator[str]:
    told = False
    for line in _parts(before, after):
        told = True
        yield f"{after.name}{line}"
    if not told:
        yield after.name


def _parts(before: Step, after: BuildStep) -> Iterator[str]:
    if before.script != after.script:
        yield f"/{RUN}"
    files = changed(
        {f.path: f.identity for f in before.files},
        {f.path: file_record(f).identity for f in after.files},
    )
    for file in files:
        fate = " is new" if file.before is None else " is gone" if file.after is None else ""
        yield f"/{file.name}{fate}"
    for parameter in changed(before.environment, after.environment):
        yield f": {_value(parameter)}"
    if sorted(before.secrets) != sorted(after.secrets):
        yield ": the secrets that it reads"


def _value(parameter: Changed) -> str:
    values = [parameter.before, parameter.after]
    if any(value is not None and (len(value) > SHOWN or "\n" in value) for value in values):
        return parameter.name
    before, after = (value if value is not None else "unset" for value in values)
    return f"{parameter.name} {before} -> {after}"
