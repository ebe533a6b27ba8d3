"""`amibuild bake` and `plan`: what a recipe makes on a target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amibuild.cli.completion import bake_ids, steps
from amibuild.cli.options import (
    DEFAULT_RECIPE,
    JsonOption,
    MachineName,
    MachineOption,
    OnErrorName,
    RecipeArgument,
    SetOption,
    TargetOption,
)
from amibuild.cli.session import session
from amibuild.errors import UsageError

if TYPE_CHECKING:
    from amibuild.bake import BakeResult
    from amibuild.plan import Plan
    from amibuild.recipe.model import Builder
    from amibuild.registry import ImageFacts
    from amibuild.verify.boot import Proof

DURATION = re.compile(r"(?:(\d{1,4})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?")


def bake(
    context: typer.Context,
    recipe: RecipeArgument = DEFAULT_RECIPE,
    target: TargetOption = None,
    machine: MachineOption = MachineName.AUTO,
    if_changed: Annotated[
        bool,
        typer.Option("--if-changed", help="Reuse a verified image when nothing has changed."),
    ] = False,
    on_error: Annotated[
        OnErrorName,
        typer.Option(
            "--on-error",
            help="Remove what was made, keep it for a look, or ask at the terminal, where a step "
            "can be run again. Ctrl-C always removes it.",
        ),
    ] = OnErrorName.CLEAN,
    pause_before: Annotated[
        str | None,
        typer.Option(
            "--pause-before",
            metavar="STEP",
            autocompletion=steps,
            help="Wait for Enter at the terminal before that step.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="BAKE_ID",
            autocompletion=bake_ids,
            help="Go on with a bake that ended early, while its builder still lives.",
        ),
    ] = None,
    lock_timeout: Annotated[
        str,
        typer.Option(
            "--lock-timeout",
            metavar="DURATION",
            help="How long to wait, such as 30m, while another bake makes this image.",
        ),
    ] = "0s",
    overrides: SetOption = None,
    junit: Annotated[
        Path | None,
        typer.Option(
            "--junit",
            metavar="FILE",
            help="Write the checks of a new image as JUnit XML. One that is there goes first.",
            show_default=False,
        ),
    ] = None,
    summary: Annotated[
        Path | None,
        typer.Option(
            "--summary",
            metavar="FILE",
            help="Write what is new in the image as Markdown. One that is there goes first.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bake an image, prove it on a fresh boot, print its AMI id."""
    with session(context, as_json=as_json) as run:
        from amibuild.cli.person import AtTerminal, check_pause, refuse_unattended
        from amibuild.project import load_project

        refuse_scripted(machine)
        refuse_unattended(on_error, pause_before)
        for option, file in (("--junit", junit), ("--summary", summary)):
            if file is not None:
                begin_report(file, option)
        lock_timeout_s = duration_s("--lock-timeout", lock_timeout)
        if resume is not None and if_changed:
            raise UsageError(
                "--resume goes on with one bake, and --if-changed may use another's image",
                hint="use one of them",
            )
        # The recipe first: its mistakes need neither boto3 nor an endpoint.
        project = load_project(recipe, overrides or ())
        check_pause(pause_before, project.steps)
        from amibuild.cli.target import open_target
        from amibuild.recipe.environment import withheld

        environ = withheld(project.recipe)

        def keep() -> bool:
            return on_error is OnErrorName.KEEP or bool(run.kept)

        asked = on_error is OnErrorName.ASK or pause_before is not None
        person = AtTerminal(run) if asked else None
        with open_target(
            project.recipe, target, machine, run.story, keep=keep, flow="amibuild.bake"
        ) as opened:
            from amibuild import bake as flow
            from amibuild.files import write_atomically
            from amibuild.scope import OnError
            from amibuild.summing_up import sum_up

            def tell(result: BakeResult) -> None:
                if result.reused:
                    run.story.say(f"nothing has changed: {result.image_name} is used again")
                run.result(result.image_id, bake_json(result))
                # Now, and not at the end: what is left of the machines does not make it less true.
                if summary is not None and (result.reused or result.manifest):
                    write_atomically(summary, sum_up(project, result, opened.target))

            def tell_checks(proof: Proof) -> None:
                if junit is not None:
                    write_report(junit, project.recipe.image.name, proof)

            flow.bake(
                project,
                opened.cloud,
                target=opened.target,
                if_changed=if_changed,
                on_error=OnError(on_error.value),
                subscribers=(person.show if person else run.show,),
                on_result=tell,
                on_proof=tell_checks,
                environ=environ,
                resume=resume,
                lock_timeout_s=lock_timeout_s,
                person=person,
                pause_before=pause_before,
            )


def write_report(path: Path, image: str, proof: Proof) -> None:
    from amibuild.files import write_atomically
    from amibuild.verify.report import junit_xml

    write_atomically(path, junit_xml(proof.whole_report, suite=image, host=proof.machine))


def begin_report(path: Path, option: str) -> None:
    """Removes the last run's report: a CI must not read it when this run has none.

    Raises: UsageError when it is no file, so that nothing else is ever removed or replaced;
    HostError when its folder is not there or can't be written to.
    """
    import os

    from amibuild.errors import HostError

    if path.exists() and not path.is_file():
        raise UsageError(f"{option}: {path} is there and is no file")
    if not path.parent.is_dir():
        raise HostError(f"{option}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise HostError(f"{option}: {path.parent} can't be written to")
    path.unlink(missing_ok=True)


def refuse_scripted(machine: MachineName) -> None:
    """Raises: UsageError."""
    if machine is MachineName.NONE:
        raise UsageError(
            "--machine none boots nothing, so no image can be made or proven with it",
            hint="it is for scripted tests: amibuild local up --machine none",
        )


def duration_s(option: str, text: str) -> float:
    """The seconds of `90s`, `30m` or `1h30m`, as Terraform takes them. Raises: UsageError."""
    found = DURATION.fullmatch(text)
    if not text or found is None:
        raise UsageError(f"{option}: {text!r} is no duration", hint="such as 90s, 30m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return hours * 3600.0 + minutes * 60 + seconds


def bake_json(result: BakeResult) -> dict[str, Any]:
    return {
        "image": {
            "id": result.image_id,
            "name": result.image_name,
            "version": result.version,
            "region": result.region,
        },
        "digest": result.digest,
        "reused": result.reused,
        "verified": result.verified,
        "manifest": str(result.manifest) if result.manifest else None,
        "runbook": str(result.runbook) if result.runbook else None,
        "tfvars": str(result.tfvars) if result.tfvars else None,
        "seconds": {"total": result.seconds_total, "steps": result.seconds_by_step},
    }


def plan(
    context: typer.Context,
    recipe: RecipeArgument = DEFAULT_RECIPE,
    target: TargetOption = None,
    machine: MachineOption = MachineName.AUTO,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what a bake would do, its digest, what is cached. Changes nothing."""
    with session(context, as_json=as_json) as run:
        from amibuild.project import load_project

        project = load_project(recipe, overrides or ())
        from amibuild.cli.target import open_target

        with open_target(
            project.recipe, target, machine, run.story, flow="amibuild.bake"
        ) as opened:
            from amibuild.bake import plan_bake, reasons
            from amibuild.steps.preflight import refuse

            planned, reusable = plan_bake(project, opened.cloud)
            refuse(project.recipe)
            why = () if reusable else reasons(project, opened.cloud, planned, opened.target)
        from amibuild.library.artifact import not_pinned

        for note in not_pinned(planned.steps):
            run.story.say(f"can't be baked yet: {note}")
        builder = project.recipe.builder
        text = plan_text(planned, reusable, builder, why)
        run.result(text, {**plan_json(planned, reusable, builder), "why": list(why)})


def plan_text(plan: Plan, reusable: ImageFacts | None, builder: Builder, why: Sequence[str]) -> str:
    from amibuild.cli.table import columns

    source = plan.source
    rows = [
        ("image", plan.image),
        ("source", f"{source.id}  {source.name}  (owner {source.owner}, {source.reference})"),
        ("builder", builder_text(builder)),
        ("volume", f"{plan.volume_gib} GiB"),
        ("digest", plan.digest),
        ("cached", f"{reusable.id}  {reusable.name}" if reusable else "no image with this digest"),
        *(("why" if number == 0 else "", one) for number, one in enumerate(why)),
    ]
    steps = [("", "step", "kind", "digest", "purpose")]
    for number, step in enumerate(plan.steps, 1):
        row = (str(number), step.name, step.kind.value, step.digest[:12], step.purpose)
        steps.append(row)
    return f"{columns(rows)}\n\n{columns(steps)}"


def builder_text(builder: Builder) -> str:
    market = "on demand"
    if builder.spot:
        price = builder.spot_max_price
        market = f"spot{f' up to ${price} an hour' if price else ''}, else on demand"
    return f"{' or '.join(builder.instance_types)}, {market}"


def plan_json(plan: Plan, reusable: ImageFacts | None, builder: Builder) -> dict[str, Any]:
    source = plan.source
    return {
        "image": plan.image,
        "source": {
            "id": source.id,
            "name": source.name,
            "owner": source.owner,
            "reference": source.reference,
        },
        "builder": {
            "instance_types": list(builder.instance_types),
            "spot": builder.spot,
            "spot_max_price": builder.spot_max_price,
        },
        "volume_gib": plan.volume_gib,
        "digest": plan.digest,
        "reusable": {"id": reusable.id, "name": reusable.name} if reusable else None,
        "steps": [
            {"name": s.name, "kind": s.kind.value, "purpose": s.purpose, "digest": s.digest}
            for s in plan.steps
        ],
    }
