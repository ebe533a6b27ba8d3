"""`amibuild promote` and `rollback`: move a channel to another image."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amibuild.cli import completion
from amibuild.cli.asking import YesOption, require_yes
from amibuild.cli.options import (
    DEFAULT_RECIPE,
    ChannelArgument,
    ImageArgument,
    JsonOption,
    MachineName,
    MachineOption,
    RecipeOption,
    TargetOption,
)
from amibuild.cli.session import Session, session

if TYPE_CHECKING:
    from amibuild.change import Change
    from amibuild.cli.target import Opened
    from amibuild.outputs.difference import Changed
    from amibuild.promote import Move, MoveResult
    from amibuild.registry import ImageFacts

# A difference of the whole distribution is no reading: the JSON has all of it.
SHOWN = 20

DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only show what would change, with the same refusals.")
]
ReasonOption = Annotated[
    str,
    typer.Option("--reason", metavar="TEXT", help="Why, for the channel's history."),
]


def promote(
    context: typer.Context,
    image: ImageArgument,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="CHANNEL",
            help="One of the recipe's channels.order.",
            autocompletion=completion.channels,
        ),
    ],
    recipe: RecipeOption = DEFAULT_RECIPE,
    target: TargetOption = None,
    machine: MachineOption = MachineName.AUTO,
    reason: ReasonOption = "",
    allow_unverified: Annotated[
        bool, typer.Option("--allow-unverified", help="Also one that is not verified.")
    ] = False,
    allow_deprecated: Annotated[
        bool, typer.Option("--allow-deprecated", help="Also one that is deprecated.")
    ] = False,
    allow_skip: Annotated[
        bool,
        typer.Option("--allow-skip", help="Also one that has not been in the channel before."),
    ] = False,
    allow_rolled_back: Annotated[
        bool,
        typer.Option(
            "--allow-rolled-back",
            help="Also one that this channel or the one before was rolled back from.",
        ),
    ] = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give a channel another image, which Terraform then finds there."""
    with session(context, as_json=as_json) as run:
        from amibuild.cli.target import open_recipe

        with open_recipe(recipe, target, machine, run.story, flow="amibuild.promote") as opened:
            from amibuild.channels import check_reason
            from amibuild.promote import Allowed, plan_promotion

            check_reason(reason)
            allowed = Allowed(allow_unverified, allow_deprecated, allow_skip, allow_rolled_back)
            move = plan_promotion(opened.cloud, opened.recipe, image, to, allowed)
            _move(run, opened, recipe, move, reason, yes=yes, dry_run=dry_run)


def rollback(
    context: typer.Context,
    channel: ChannelArgument,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="VERSION",
            help="An image that the channel has had; else the last one that can be used.",
            show_default=False,
            autocompletion=completion.images,
        ),
    ] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    target: TargetOption = None,
    machine: MachineOption = MachineName.AUTO,
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give a channel the image back that it had before."""
    with session(context, as_json=as_json) as run:
        from amibuild.cli.target import open_recipe

        with open_recipe(recipe, target, machine, run.story, flow="amibuild.promote") as opened:
            from amibuild.channels import check_reason
            from amibuild.promote import plan_rollback

            check_reason(reason)
            move = plan_rollback(opened.cloud, opened.recipe, channel, to)
            _move(run, opened, recipe, move, reason, yes=yes, dry_run=dry_run)


def _move(
    run: Session,
    opened: Opened,
    path: Path,
    move: Move,
    reason: str,
    *,
    yes: bool,
    dry_run: bool,
) -> None:
    """Shows it, asks, does it, tells it."""
    from amibuild.change import change_between
    from amibuild.promote import MoveResult, carry_out

    path = path.absolute()
    change = None
    if move.needed:
        state_dir = path.parent / ".amibuild"
        bucket = opened.recipe.aws.bucket
        change = change_between(opened.cloud, state_dir, bucket, move.before, move.image)
        run.story.say(change_text(move, change, datetime.now(UTC)))
        if dry_run:
            text = f"would change {_from_to(move)}"
            run.result(text, moved_json(MoveResult(move, move.channel.version, None), change))
            return
        question = f"Give {move.channel.name} the image {move.image.name}?"
        require_yes(question, yes=yes, as_json=run.as_json)
    else:
        run.story.say(f"{move.channel.name} has {move.image.id} ({move.image.name}) already")
    moved = carry_out(
        opened.cloud,
        path,
        move,
        target=opened.target,
        reason=reason,
        subscribers=(run.show,),
    )
    run.result(moved_text(moved), moved_json(moved, change))


def change_text(move: Move, change: Change, now: datetime) -> str:
    from amibuild.outputs.difference import count_text

    channel = move.channel
    head = f"{move.verb} {channel.name}  {channel.parameter}  {channel.region}"
    from_ = _side(change.before, now) if change.before else (channel.image_id or "nothing")
    lines = [head, f"  from      {from_}", f"  to        {_side(change.after, now)}"]
    if change.checks is not None:
        lines.append(f"  checks    {change.checks}")
    if change.difference is not None:
        for what, things in (
            ("packages", change.difference.packages),
            ("services", change.difference.services),
        ):
            lines.append(f"  {what}  {count_text(things)}")
            lines += [f"    {thing}" for thing in things[:SHOWN]]
            if len(things) > SHOWN:
                lines.append(f"    and {len(things) - SHOWN} more: --json has all")
    lines += [f"  note: {note}" for note in change.notes]
    lines += [f"  passed over: {one}" for one in move.passed_over]
    return "\n".join(lines)


def _side(image: ImageFacts, now: datetime) -> str:
    verified = "" if image.verified else ", not verified"
    return f"{image.id}  {image.name}  {age_text(now - image.created)} old{verified}"


def age_text(age: Any) -> str:
    """Such as `3 d` or `5 h`: what it is rounded down to."""
    minutes = max(int(age.total_seconds() // 60), 0)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // (24 * 60)} d"


def moved_text(moved: MoveResult) -> str:
    return _from_to(moved.move) if moved.id else moved.move.image.id


def _from_to(move: Move) -> str:
    return f"{move.channel.name}  {move.channel.image_id or 'nothing'} -> {move.image.id}"


def moved_json(moved: MoveResult, change: Change | None) -> dict[str, Any]:
    move = moved.move
    difference = change.difference if change else None
    return {
        "verb": str(move.verb),
        "channel": move.channel.name,
        "parameter": move.channel.parameter,
        "region": str(move.channel.region),
        "needed": move.needed,
        "changed": moved.id is not None,
        "version": moved.version,
        "from": {"id": move.channel.image_id, **_named(move.before)}
        if move.channel.image_id
        else None,
        "to": {"id": move.image.id, **_named(move.image)},
        "journal": moved.id,
        "passed_over": list(move.passed_over),
        "difference": {
            "packages": [_changed(one) for one in difference.packages],
            "services": [_changed(one) for one in difference.services],
        }
        if difference
        else None,
        "notes": list(change.notes) if change else [],
    }


def _named(image: ImageFacts | None) -> dict[str, Any]:
    if image is None:
        return {"name": None, "version": None, "created": None, "verified": None}
    return {
        "name": image.name,
        "version": image.version,
        "created": image.created.isoformat(),
        "verified": image.verified,
    }


def _changed(one: Changed) -> dict[str, Any]:
    return {"name": one.name, "before": one.before, "after": one.after}
