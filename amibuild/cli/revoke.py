"""`amibuild revoke`: an image that nobody shall start any longer."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amibuild.cli.asking import YesOption, require_yes
from amibuild.cli.options import (
    DEFAULT_RECIPE,
    JsonOption,
    MachineName,
    MachineOption,
    RecipeOption,
    TargetOption,
)
from amibuild.cli.promote import ImageArgument
from amibuild.cli.session import session

if TYPE_CHECKING:
    from amibuild.revoke import Revocation


def revoke(
    context: typer.Context,
    image: ImageArgument,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; it becomes a tag of the image.")
    ],
    recipe: RecipeOption = DEFAULT_RECIPE,
    target: TargetOption = None,
    machine: MachineOption = MachineName.AUTO,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Disable and deprecate an image. Channels that have it are named; machines go on."""
    with session(context, as_json=as_json) as run:
        from amibuild.cli.target import open_recipe

        with open_recipe(recipe, target, machine, run.story, flow="amibuild.revoke") as opened:
            from amibuild import revoke as flow

            flow.check_why(reason)
            plan = flow.plan_revocation(opened.cloud, opened.recipe, image)
            ways = _ways_back(plan, recipe, opened.target)
            if plan.needed:
                name = f"{plan.image.name} ({plan.image.id})"
                run.story.say(f"revoke {name} in {plan.image.region}: {reason}")
                for channel, command in ways.items():
                    run.story.say(f"  {channel} has it: `{command}` mends that")
                require_yes(f"Revoke {name}?", yes=yes, as_json=as_json)
            else:
                run.story.say(f"{plan.image.id} is revoked already: {plan.image.revoked}")
            id_ = flow.carry_out(
                opened.cloud,
                recipe.absolute(),
                plan,
                target=opened.target,
                reason=reason,
                subscribers=(run.show,),
            )
        for channel, command in ways.items():
            run.story.say(f"{channel} still has {plan.image.id}: `{command}` mends that")
        run.result(plan.image.id, _json(plan, ways, reason, id_))


def _ways_back(plan: Revocation, recipe: Path, target: str) -> dict[str, str]:
    """Channel -> the command that gives it another image."""
    named = [] if recipe == DEFAULT_RECIPE else ["--recipe", str(recipe)]
    return {
        channel.name: shlex.join(["amibuild", "rollback", channel.name, *named, "--target", target])
        for channel in plan.channels
    }


def _json(plan: Revocation, ways: dict[str, str], reason: str, id_: str | None) -> dict[str, Any]:
    return {
        "image": {"id": plan.image.id, "name": plan.image.name, "version": plan.image.version},
        "region": plan.image.region,
        "changed": id_ is not None,
        "reason": reason if plan.image.revoked is None else plan.image.revoked,
        "journal": id_,
        "channels": [
            {"channel": one.name, "parameter": one.parameter, "rollback": ways[one.name]}
            for one in plan.channels
        ],
    }
