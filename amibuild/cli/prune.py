"""`amibuild prune`: old images that nothing uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from amibuild.cli.asking import YesOption, require_yes
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
    from amibuild.prune import PrunePlan, PruneReport
    from amibuild.retention import Verdict


def prune(
    context: typer.Context,
    recipe: RecipeArgument = DEFAULT_RECIPE,
    target: TargetOption = None,
    machine: MachineOption = MachineName.AUTO,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep",
            metavar="N",
            min=1,
            help="Newest versions that stay; else [prune] keep.",
            show_default=False,
        ),
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(
            "--days",
            metavar="D",
            min=0,
            help="Younger images stay; else [prune] days.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be removed.")
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove old images with their snapshots. What anything uses stays, and it says what does."""
    with session(context, as_json=as_json) as run:
        from amibuild.cli.target import open_recipe
        from amibuild.errors import LeftoverError

        with open_recipe(recipe, target, machine, run.story, flow="amibuild.prune") as opened:
            from amibuild import prune as flow
            from amibuild.retention import Rule

            rule = Rule(
                opened.recipe.prune.keep if keep is None else keep,
                opened.recipe.prune.days if days is None else days,
            )
            plan = flow.plan_prune(opened.cloud, opened.recipe, rule)
            for one in plan.verdicts:
                if one.stays:
                    run.story.say(f"stays: {_told(one)}: {'; '.join(one.stays)}")
            if not plan.needed:
                run.story.say(f"nothing of {opened.recipe.image.name} has to go in {plan.region}")
            if dry_run:
                run.result(plan_text(plan), plan_json(plan))
                return
            if plan.needed:
                run.story.say(plan_text(plan))
                what = f"{len(plan.going)} images and {len(plan.orphans)} snapshots without one"
                require_yes(f"Remove {what}?", yes=yes, as_json=as_json)
            report = flow.carry_out(
                opened.cloud,
                opened.recipe,
                recipe.absolute(),
                plan,
                target=opened.target,
                subscribers=(run.show,),
            )
        for one in report.spared:
            run.story.say(f"spared: {_told(one)}: {'; '.join(one.stays)}")
        run.result(report_text(report), report_json(plan, report))
        if report.left:
            raise LeftoverError(report.left, hint="the same call tries again")


def _told(one: Verdict) -> str:
    return f"{one.image.id} ({one.image.name})"


def plan_text(plan: PrunePlan) -> str:
    lines = [f"would remove {_told(one)}: {one.why}" for one in plan.going]
    return "\n".join([*lines, *(f"would remove {id_}: its image is gone" for id_ in plan.orphans)])


def report_text(report: PruneReport) -> str:
    lines = [f"removed {_told(one)}: {one.why}" for one in report.removed]
    lines += [f"removed {id_}: its image is gone" for id_ in report.snapshots]
    lines += [f"left {x.kind} {x.id} in {x.region}: {x.reason}" for x in report.left]
    return "\n".join(lines)


def plan_json(plan: PrunePlan) -> dict[str, Any]:
    return {
        "region": plan.region,
        "keep": plan.rule.keep,
        "days": plan.rule.days,
        "would_remove": [_going(one) for one in plan.going],
        "would_remove_snapshots": list(plan.orphans),
        "stays": [_staying(one) for one in plan.verdicts if one.stays],
    }


def report_json(plan: PrunePlan, report: PruneReport) -> dict[str, Any]:
    stays = [one for one in plan.verdicts if one.stays]
    return {
        "region": plan.region,
        "keep": plan.rule.keep,
        "days": plan.rule.days,
        "journal": report.id,
        "removed": [_going(one) for one in report.removed],
        "removed_snapshots": list(report.snapshots),
        "stays": [_staying(one) for one in [*stays, *report.spared]],
        "left": [
            {
                "kind": str(x.kind),
                "id": x.id,
                "region": x.region,
                "reason": x.reason,
                "command": x.command,
            }
            for x in report.left
        ],
    }


def _named(one: Verdict) -> dict[str, Any]:
    return {"id": one.image.id, "name": one.image.name, "version": one.image.version}


def _going(one: Verdict) -> dict[str, Any]:
    return {**_named(one), "why": one.why, "snapshots": list(one.image.snapshot_ids)}


def _staying(one: Verdict) -> dict[str, Any]:
    return {**_named(one), "why": list(one.stays)}
