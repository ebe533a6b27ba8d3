"""`amibuild channels` and `channels history`: where each channel points, and where it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from amibuild.cli.options import (
    DEFAULT_RECIPE,
    ChannelArgument,
    JsonOption,
    MachineName,
    MachineOption,
    RecipeOption,
    TargetOption,
)
from amibuild.cli.promote import age_text
from amibuild.cli.session import session

if TYPE_CHECKING:
    from amibuild.channels import Entry, Seen

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def channels(
    context: typer.Context,
    recipe: RecipeOption = DEFAULT_RECIPE,
    target: TargetOption = None,
    machine: MachineOption = MachineName.AUTO,
    as_json: JsonOption = False,
) -> None:
    """Show the channels of a recipe: image, version, age, and where regions differ."""
    if context.invoked_subcommand is not None:
        return
    with session(context, as_json=as_json) as run:
        from amibuild.channels import survey
        from amibuild.cli.target import open_recipe

        with open_recipe(recipe, target, machine, run.story) as opened:
            found = survey(opened.cloud, opened.recipe)
        run.result(survey_text(found, datetime.now(UTC)), survey_json(found))


def survey_text(regions: Mapping[str, Sequence[Seen]], now: datetime) -> str:
    from amibuild.channels import drift
    from amibuild.cli.table import columns

    rows = [("channel", "image", "version", "age", "state", "since", "drift")]
    for number, seen in enumerate(next(iter(regions.values()))):
        current, image = seen.channel.current, seen.image
        apart = drift(regions, number)
        rows.append(
            (
                seen.channel.name,
                current.value if current else "-",
                image.version if image else seen.foreign or "-",
                age_text(now - image.created) if image else "-",
                state_of(seen),
                f"{current.modified.astimezone(UTC):%Y-%m-%d %H:%M}" if current else "-",
                ", ".join(f"{region} has {what}" for region, what in apart.items()) or "-",
            )
        )
    return columns(rows)


def state_of(seen: Seen) -> str:
    if seen.channel.current is None:
        return "empty"
    if seen.image is None:
        return "foreign" if seen.foreign else "gone"
    return "revoked" if seen.image.revoked is not None else seen.image.state


def survey_json(regions: Mapping[str, Sequence[Seen]]) -> dict[str, Any]:
    from amibuild.channels import drift

    first = next(iter(regions.values()))
    return {
        "channels": [
            {
                "name": seen.channel.name,
                "parameter": seen.channel.parameter,
                "drift": drift(regions, number),
                "regions": {region: _place(found[number]) for region, found in regions.items()},
            }
            for number, seen in enumerate(first)
        ]
    }


def _place(seen: Seen) -> dict[str, Any]:
    current, image = seen.channel.current, seen.image
    return {
        "image": current.value if current else None,
        "name": image.name if image else seen.foreign or None,
        "version": image.version if image else None,
        "created": image.created.isoformat() if image else None,
        "state": state_of(seen),
        "parameter_version": current.version if current else None,
        "since": current.modified.isoformat() if current else None,
    }


@app.command("history")
def history(
    context: typer.Context,
    channel: ChannelArgument,
    recipe: RecipeOption = DEFAULT_RECIPE,
    target: TargetOption = None,
    machine: MachineOption = MachineName.AUTO,
    as_json: JsonOption = False,
) -> None:
    """Show what a channel has had, newest first: since when, by whom, why."""
    with session(context, as_json=as_json) as run:
        from amibuild.channels import parameter_of, read_history
        from amibuild.cli.target import open_target
        from amibuild.recipe.load import load_recipe

        wanted = load_recipe(recipe)
        parameter = parameter_of(wanted, channel)
        with open_target(wanted, target, machine, run.story, base=False) as opened:
            found = read_history(opened.cloud, parameter)[::-1]
        if not found:
            run.story.say(f"nothing was promoted to {channel} yet")
        run.result(
            history_text(found),
            {
                "channel": channel,
                "parameter": parameter,
                "region": wanted.aws.region,
                "history": [_entry(one) for one in found],
            },
        )


def history_text(entries: Sequence[Entry]) -> str:
    from amibuild.cli.table import columns

    if not entries:
        return ""
    rows = [("version", "at", "image", "name", "how", "by", "reason")]
    for one in entries:
        note = one.note
        rows.append(
            (
                str(one.version),
                f"{one.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
                one.image_id,
                note.name if note else "-",
                note.verb if note else "-",
                one.by or "-",
                (note.reason if note else "") or "-",
            )
        )
    return columns(rows)


def _entry(one: Entry) -> dict[str, Any]:
    note = one.note
    return {
        "version": one.version,
        "at": one.at.isoformat(),
        "image": one.image_id,
        "user": one.user,
        "by": one.by,
        "name": note.name if note else None,
        "verb": str(note.verb) if note else None,
        "reason": note.reason if note else None,
        "previous": note.previous if note else None,
        "journal": note.move if note else None,
    }
