"""`amibuild verify`: proves an image again, and tells it to a person, a program and a CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amibuild.cli.bake import begin_report, refuse_scripted, write_report
from amibuild.cli.options import (
    DEFAULT_RECIPE,
    ImageArgument,
    JsonOption,
    MachineName,
    MachineOption,
    RecipeOption,
    SetOption,
    TargetOption,
)
from amibuild.cli.session import session

if TYPE_CHECKING:
    from amibuild.verify.boot import Proof


def verify(
    context: typer.Context,
    image: ImageArgument,
    recipe: RecipeOption = DEFAULT_RECIPE,
    target: TargetOption = None,
    machine: MachineOption = MachineName.AUTO,
    overrides: SetOption = None,
    junit: Annotated[
        Path | None,
        typer.Option(
            "--junit",
            metavar="FILE",
            help="Write the report as JUnit XML too. One that is there already goes first.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove an image again: boot it fresh, run its checks there."""
    with session(context, as_json=as_json) as run:
        from amibuild.project import load_project

        refuse_scripted(machine)
        if junit is not None:
            begin_report(junit, "--junit")
        project = load_project(recipe, overrides or ())
        from amibuild.cli.target import open_target
        from amibuild.verify import boot

        with open_target(project.recipe, target, machine, run.story) as opened:
            proof = boot.verify(
                project,
                opened.cloud,
                image,
                target=opened.target,
                subscribers=(run.show,),
            )
        if junit is not None:
            write_report(junit, image, proof)
        run.result(proof_text(proof), proof_json(image, proof))
        boot.require(proof, image)


def proof_text(proof: Proof) -> str:
    from amibuild.cli.table import columns

    rows = []
    for check in proof.whole_report.checks:
        measured = ", ".join(f"{name} {value}" for name, value in check.measures.items())
        said = measured or (check.reason if check.message else "")
        rows.append((check.outcome, check.id, f"{check.seconds:.2f}s", said))
    return columns(rows)


def proof_json(image: str, proof: Proof) -> dict[str, Any]:
    boot = proof.report.boot
    return {
        "image": image,
        "verified": proof.passed,
        "boot": boot.model_dump() if boot else None,
        "machine": proof.machine,
        "seconds": proof.report.seconds,
        "checks": [
            {
                "id": c.id,
                "step": c.step,
                "outcome": c.outcome,
                "seconds": c.seconds,
                "message": c.message,
                "measures": dict(c.measures),
            }
            for c in proof.report.checks
        ],
        "hygiene": {
            "passed": list(proof.hygiene.passed),
            "failed": [finding.model_dump() for finding in proof.hygiene.failed],
            "waived": [finding.model_dump() for finding in proof.hygiene.waived],
        },
    }
