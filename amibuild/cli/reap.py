"""`amibuild reap`: removes what dead bakes left."""

from __future__ import annotations

from collections.abc import Sequence
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
    from amibuild.reaped import Elsewhere, Leased, ReapReport, Thing


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
    regions: Annotated[
        list[str] | None,
        typer.Option(
            "--region",
            metavar="REGION",
            help="Only there. Repeatable. Else the recipe's, and those of this folder's journals.",
            show_default=False,
        ),
    ] = None,
    all_regions: Annotated[
        bool, typer.Option("--all-regions", help="In each that is enabled for the account.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what dead bakes left, by journals and by tags. Live bakes are left alone."""
    with session(context, as_json=as_json) as run:
        from amibuild import reap as flow
        from amibuild.cli.target import open_recipe
        from amibuild.errors import AmibuildError, LeftoverError

        check_regions(regions or (), all_regions=all_regions)
        with open_recipe(recipe, target, machine, run.story) as opened:
            report = flow.reap(
                opened.cloud,
                recipe.absolute().parent / ".amibuild",
                target=opened.target,
                dry_run=dry_run,
                kept=kept,
                regions=opened.cloud.ec2.enabled_regions() if all_regions else regions,
                bucket=opened.recipe.aws.bucket,
                subscribers=(run.story.show,),
            )
        for bake_id in report.live:
            run.story.say(f"bake {bake_id} is alive: left alone")
        for bake_id in report.busy:
            run.story.say(f"another process has the journal of bake {bake_id}: left to that one")
        for one in report.elsewhere:
            run.story.say(elsewhere_text(one))
        if report.kept:
            names = ", ".join(map(told, report.kept))
            run.story.say(f"kept for a look: {names}; --kept removes it before its time is over")
        for leased in report.leased:
            run.story.say(leased_text(leased))
        if not any(
            (report.removed, report.would_remove, report.left, report.unreached, report.kept,
             report.leased)
        ):  # fmt: skip
            run.story.say(f"nothing was left behind in {', '.join(report.regions)}")
        run.result(report_text(report), report_json(report))
        if report.left:
            if report.unreached:
                run.story.say(unreached_text(report))
            raise LeftoverError(report.left)
        if report.unreached:
            raise AmibuildError(unreached_text(report), hint=report.unreached[0].hint)


def check_regions(regions: Sequence[str], *, all_regions: bool) -> None:
    """Raises: UsageError."""
    from amibuild.errors import UsageError
    from amibuild.recipe.values import REGION

    if regions and all_regions:
        raise UsageError("--region and --all-regions say different things", hint="give one of them")
    for region in regions:
        if not REGION.fullmatch(region):
            raise UsageError(f"--region: {region!r} is not a region such as us-east-1")


def told(thing: Thing) -> str:
    return f"{thing.kind} {thing.id} in {thing.region}"


def leased_text(leased: Leased) -> str:
    return (
        f"{told(leased.thing)} is left alone until {leased.until:%Y-%m-%dT%H:%M:%SZ}: no journal "
        f"here says that its bake {leased.bake_id} is dead"
    )


def elsewhere_text(one: Elsewhere) -> str:
    account = f", account {one.account}" if one.account else ""
    where = f"{one.target}, {one.region}{account}"
    return f"bake {one.bake_id} ({where}) left something elsewhere: call reap for that one"


def unreached_text(report: ReapReport) -> str:
    lines = [f"\n{one.journal or one.region}: {one.reason}" for one in report.unreached]
    return "what is left could not be seen everywhere:" + "".join(lines)


def report_text(report: ReapReport) -> str:
    lines = [f"removed {told(thing)}" for thing in report.removed]
    lines += [f"would remove {told(thing)}" for thing in report.would_remove]
    lines += [f"left {x.kind} {x.id} in {x.region}: {x.reason}" for x in report.left]
    return "\n".join(lines)


def report_json(report: ReapReport) -> dict[str, Any]:
    def each(found: Sequence[Thing]) -> list[dict[str, str]]:
        return [{"kind": str(x.kind), "id": x.id, "region": x.region} for x in found]

    return {
        "regions": list(report.regions),
        "removed": each(report.removed),
        "would_remove": each(report.would_remove),
        "left": [
            {
                "kind": x.kind,
                "id": x.id,
                "region": x.region,
                "reason": x.reason,
                "command": x.command,
            }
            for x in report.left
        ],
        "live": list(report.live),
        "busy": list(report.busy),
        "elsewhere": [
            {"bake_id": x.bake_id, "target": x.target, "region": x.region, "account": x.account}
            for x in report.elsewhere
        ],
        "kept": each(report.kept),
        "leased": [
            {
                "kind": str(x.thing.kind),
                "id": x.thing.id,
                "region": x.thing.region,
                "bake_id": x.bake_id,
                "until": x.until.isoformat(),
            }
            for x in report.leased
        ],
        "unreached": [
            {"region": x.region, "reason": x.reason, "hint": x.hint, "journal": x.journal}
            for x in report.unreached
        ],
    }
