"""`amibuild reap`: removes what dead bakes left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from amibuild.cli.options import (
    DEFAULT_RECIPE,
    JsonOption,
    MachineName,
    MachineOption,
    RecipeArgument,
    TargetOption,
)
from amibuild.cli.session import session

if TYPE_CHECKING:
    from amibuild.reap import ReapReport


def reap(
    context: typer.Context,
    recipe: RecipeArgument = DEFAULT_RECIPE,
    target: TargetOption = None,
    machine: MachineOption = MachineName.AUTO,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be removed.")
    ] = False,
    kept: Annotated[
        bool,
        typer.Option("--kept", help="Also what --on-error keep left, before its time is over."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what dead bakes left, by journals and by tags. Live bakes are left alone."""
    with session(context, as_json=as_json) as run:
        from amibuild import reap as flow
        from amibuild.cli.target import open_target
        from amibuild.errors import LeftoverError
        from amibuild.recipe.load import load_recipe

        wanted = load_recipe(recipe)
        with open_target(wanted, target, machine, run.story, base=False) as opened:
            report = flow.reap(
                opened.cloud,
                recipe.absolute().parent / ".amibuild",
                target=opened.target,
                dry_run=dry_run,
                kept=kept,
                subscribers=(run.story.show,),
            )
        for bake_id in report.live:
            run.story.say(f"bake {bake_id} is alive: left alone")
        for one in report.elsewhere:
            run.story.say(
                f"bake {one.bake_id} ({one.target}, {one.region}) left something elsewhere: "
                "call reap for that one"
            )
        if report.kept:
            names = ", ".join(f"{kind} {id_}" for kind, id_ in report.kept)
            run.story.say(f"kept for a look: {names}; --kept removes it before its time is over")
        elif not (report.removed or report.would_remove or report.left):
            run.story.say("nothing was left behind")
        run.result(report_text(report), report_json(report))
        if report.left:
            raise LeftoverError(report.left)


def report_text(report: ReapReport) -> str:
    lines = [f"removed {kind} {id_}" for kind, id_ in report.removed]
    lines += [f"would remove {kind} {id_}" for kind, id_ in report.would_remove]
    lines += [f"left {x.kind} {x.id}: {x.reason}" for x in report.left]
    return "\n".join(lines)


def report_json(report: ReapReport) -> dict[str, Any]:
    def pairs(found: list[tuple[str, str]]) -> list[dict[str, str]]:
        return [{"kind": str(kind), "id": id_} for kind, id_ in found]

    return {
        "removed": pairs(report.removed),
        "would_remove": pairs(report.would_remove),
        "left": [
            {"kind": x.kind, "id": x.id, "reason": x.reason, "command": x.command}
            for x in report.left
        ],
        "live": list(report.live),
        "elsewhere": [
            {"bake_id": x.bake_id, "target": x.target, "region": x.region} for x in report.elsewhere
        ],
        "kept": pairs(report.kept),
    }
