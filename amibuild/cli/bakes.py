"""`amibuild bakes` and `logs`: what runs and what ran, from the journals and the logs of steps."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amibuild.cli.completion import logged_steps
from amibuild.cli.machine import BakeIdArgument, opened
from amibuild.cli.options import DEFAULT_RECIPE, JsonOption, RecipeArgument, RecipeOption
from amibuild.cli.session import Session, session

if TYPE_CHECKING:
    from amibuild.bakes import BakeFacts
    from amibuild.communicator.said import LogLeft

NEWEST = 20


def bakes(
    context: typer.Context,
    recipe: RecipeArgument = DEFAULT_RECIPE,
    every: Annotated[
        bool, typer.Option("--all", help=f"All of them, not the newest {NEWEST}.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List running and past bakes, and what else has a journal here, the newest first."""
    with session(context, as_json=as_json) as run:
        from amibuild.bakes import bakes as all_bakes

        found = list(itertools.islice(all_bakes(_state_dir(recipe)), None if every else NEWEST))
        if not found:
            run.story.say(f"no bake has run beside {recipe}")
        run.result(bakes_text(found), {"bakes": [bake_json(one) for one in found]})


def bakes_text(found: Sequence[BakeFacts]) -> str:
    from amibuild.cli.table import columns
    from amibuild.wording import duration_text

    if not found:
        return ""
    rows = [("id", "what", "image", "target", "state", "began", "time", "step", "left")]
    for one in found:
        rows.append(
            (
                one.id,
                one.flow,
                one.image or "-",
                one.target or "-",
                one.state.value,
                f"{one.began:%Y-%m-%dT%H:%M:%SZ}" if one.began else "-",
                duration_text(one.seconds),
                one.step or "-",
                ", ".join(f"{kind} {id_}" for kind, id_ in one.left) or "-",
            )
        )
    return columns(rows)


def bake_json(one: BakeFacts) -> dict[str, Any]:
    return {
        **dataclasses.asdict(one),
        "state": one.state.value,
        "began": f"{one.began:%Y-%m-%dT%H:%M:%SZ}" if one.began else None,
        "left": [{"kind": kind.value, "id": id_} for kind, id_ in one.left],
    }


def logs(
    context: typer.Context,
    bake_id: BakeIdArgument,
    step: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=logged_steps,
            help="What that step said, instead of the story.",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", "-f", help="Go on until the bake ends, or with --step that step does."
        ),
    ] = False,
    recipe: RecipeOption = DEFAULT_RECIPE,
) -> None:
    """Tell the story of a bake, running or past, or what one of its steps said."""
    with session(context, as_json=False) as run:
        from amibuild.resume import journal_file

        path = journal_file(_state_dir(recipe), bake_id)
        if step is None:
            _story(run, path, follow=follow)
        else:
            _step_log(run, recipe, path, step, follow=follow)


def _story(run: Session, path: Path, *, follow: bool) -> None:
    from amibuild.bakes import State, facts_of, followed
    from amibuild.journal import read
    from amibuild.ui import print_result
    from amibuild.wording import journal_line

    for event in followed(path) if follow else read(path):
        line = journal_line(event)
        if line is not None:
            print_result(f"{event.at:%H:%M:%S}Z {line.text}")
    if facts_of(path).state is State.DEAD:
        run.story.say("nothing more comes: its process is gone; `amibuild reap` removes its things")


def _step_log(run: Session, recipe: Path, path: Path, step: str, *, follow: bool) -> None:
    from amibuild.bakes import State, facts_of, running_step
    from amibuild.communicator.said import LogLeft
    from amibuild.errors import UsageError
    from amibuild.journal import read
    from amibuild.recipe.document import did_you_mean
    from amibuild.ui import write_bytes

    folder = path.parents[1] / "logs" / path.stem
    left = LogLeft(folder / f"{step}.log")
    runs = facts_of(path).state is State.RUNNING and running_step(list(read(path))) == step
    if runs and follow:
        _said(run, recipe, path, step, left)
        return
    # Only names that are there: it is a part of a path.
    known = sorted(one.stem for one in folder.glob("*.log"))
    if step in known:
        if runs:
            run.story.say(f"{step} runs again: this is what it said before; --follow shows more")
        write_bytes((folder / f"{step}.log").read_bytes())
        return
    if runs:
        raise UsageError(
            f"{step} runs: until it ends its log is on the machine", hint="--follow shows it"
        )
    hint = did_you_mean(step, known) or (f"there is {', '.join(known)}" if known else None)
    raise UsageError(f"bake {path.stem} has no log of {step}", hint=hint)


def _said(run: Session, recipe: Path, path: Path, step: str, left: LogLeft) -> None:
    """What a running step says, from its machine, until it ends; then the rest from the log that it
    has left."""
    from amibuild.bakes import State, facts_of, running_step
    from amibuild.communicator.said import Withheld, follow, wait_until_over
    from amibuild.journal import read
    from amibuild.ui import write_bytes

    def over() -> bool:
        return facts_of(path).state is not State.RUNNING or running_step(list(read(path))) != step

    def away(why: str) -> None:
        run.story.say(f"not reached for now, and asked again: {why}")

    with opened(recipe, path.stem, None, run.story) as found:
        try:
            shown = follow(found.communicator, step, over=over, show=write_bytes, away=away)
        except Withheld:
            run.story.say(f"{step} may tell secrets: what it says is shown when it has ended")
            shown = 0
            wait_until_over(step, over)
    write_bytes(left.rest(shown))


def _state_dir(recipe: Path) -> Path:
    return recipe.absolute().parent / ".amibuild"
