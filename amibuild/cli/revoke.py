"""`amibuild revoke`: an image that nobody shall start any longer."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amibuild.cli.asking import YesOption, require_yes
from amibuild.cli.options import (
    DEFAULT_RECIPE,
    ImageArgument,
    JsonOption,
    MachineName,
    MachineOption,
    RecipeOption,
    TargetOption,
)
from amibuild.cli.session import session

if TYPE_CHECKING:
    from amibuild.revoke import Mend, Revocation


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
            if plan.needed:
                name = f"{plan.image.name} ({plan.image.id})"
                run.story.say(f"revoke {name} in {plan.image.region}: {reason}")
                for one in plan.mends:
                    how = _how(one, recipe, opened.target)
                    run.story.say(f"  {one.channel.name} has it: {how}")
                require_yes(f"Revoke {name}?", yes=yes, as_json=as_json)
            id_ = flow.carry_out(
                opened.cloud,
                recipe.absolute(),
                plan,
                target=opened.target,
                reason=reason,
                subscribers=(run.show,),
            )
            if plan.needed:  # channels may have moved meanwhile, or somebody may have been quicker
                plan = flow.plan_revocation(opened.cloud, opened.recipe, plan.image.id)
            if id_ is None:
                run.story.say(f"{plan.image.id} is revoked already: {plan.image.revoked}")
        commands = {one.channel.name: _command(one, recipe, opened.target) for one in plan.mends}
        for one in plan.mends:
            how = _how(one, recipe, opened.target)
            run.story.say(f"{one.channel.name} still has {plan.image.id}: {how}")
        run.result(plan.image.id, _json(plan, commands, reason, id_))


def _how(mend: Mend, recipe: Path, target: str) -> str:
    command = _command(mend, recipe, target)
    if command is None:
        return "no other image is there to take its place, so bake one and promote it"
    return f"`{command}` mends that"


def _command(mend: Mend, recipe: Path, target: str) -> str | None:
    """What gives the channel another image; None when there is none."""
    if mend.image is None:
        return None
    channel, named = mend.channel.name, []
    if recipe != DEFAULT_RECIPE:
        named = ["--recipe", str(recipe)]
    words = (
        ["rollback", channel]
        if mend.verb == "rollback"
        else ["promote", mend.image.version, "--to", channel, *mend.flags]
    )
    return shlex.join(["amibuild", *words, *named, "--target", target])


def _json(
    plan: Revocation, commands: dict[str, str | None], reason: str, id_: str | None
) -> dict[str, Any]:
    return {
        "image": {"id": plan.image.id, "name": plan.image.name, "version": plan.image.version},
        "region": plan.image.region,
        "changed": id_ is not None,
        "reason": reason if plan.image.revoked is None else plan.image.revoked,
        "journal": id_,
        "channels": [
            {
                "channel": one.channel.name,
                "parameter": one.channel.parameter,
                "rollback": commands[one.channel.name] if one.verb == "rollback" else None,
                "promote": commands[one.channel.name] if one.verb == "promote" else None,
            }
            for one in plan.mends
        ],
    }
