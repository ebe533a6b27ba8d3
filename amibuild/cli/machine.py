"""`amibuild run` and `shell`: root on the machine of a bake that runs, or that was kept."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amibuild.cli.bake import duration_s
from amibuild.cli.completion import bake_ids
from amibuild.cli.lines import HOW, line_by_line, show, whole_stdin
from amibuild.cli.options import (
    DEFAULT_RECIPE,
    JsonOption,
    MachineName,
    RecipeOption,
    TargetName,
)
from amibuild.cli.session import session

if TYPE_CHECKING:
    from amibuild.bake_machine import BakeMachine
    from amibuild.ui import Story

BakeIdArgument = Annotated[
    str,
    typer.Argument(
        metavar="BAKE_ID", help="As `amibuild bakes` lists it.", autocompletion=bake_ids
    ),
]


class WhichName(StrEnum):
    BUILD = "build"
    VERIFY = "verify"


WhichOption = Annotated[
    WhichName | None,
    typer.Option(
        "--machine",
        help="The builder, or the fresh machine that proves the image. Without it the builder, "
        "if it lives.",
        show_default=False,
    ),
]
TimeoutOption = Annotated[
    str,
    typer.Option("--timeout", metavar="DURATION", help="How long a command may take, up to 48h."),
]


def run(
    context: typer.Context,
    bake_id: BakeIdArgument,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="With its arguments.")],
    machine: WhichOption = None,
    timeout: TimeoutOption = "1h",
    recipe: RecipeOption = DEFAULT_RECIPE,
    as_json: JsonOption = False,
) -> None:
    """Run a command as root on a bake's builder; ends with its exit code, its stdin is empty."""
    with session(context, as_json=as_json) as verb:
        import shlex

        timeout_s = timeout_of(timeout)
        with opened(recipe, bake_id, machine, verb.story) as found:
            ran = found.run(f"{shlex.join(command)}\n".encode(), timeout_s=timeout_s)
        if as_json:
            said = {
                "machine": found.id,
                "exit_code": ran.exit_code,
                "stdout": ran.stdout.decode(errors="replace"),
                "stderr": ran.stderr.decode(errors="replace"),
            }
            verb.result("", said)
        else:
            show(ran)
    raise typer.Exit(ran.exit_code)


def shell(
    context: typer.Context,
    bake_id: BakeIdArgument,
    machine: WhichOption = None,
    timeout: TimeoutOption = "1h",
    recipe: RecipeOption = DEFAULT_RECIPE,
) -> None:
    """Be root on a bake's builder, a line at a time, or run what is on stdin."""
    with session(context, as_json=False) as verb:
        timeout_s = timeout_of(timeout)
        with opened(recipe, bake_id, machine, verb.story) as found:
            if sys.stdin.isatty():
                verb.story.say(HOW)
                code = line_by_line(found.id, lambda script: found.run(script, timeout_s=timeout_s))
            else:
                code = show(found.run(whole_stdin(verb.story.say), timeout_s=timeout_s))
    raise typer.Exit(code)


@contextmanager
def opened(
    recipe: Path, bake_id: str, machine: WhichName | None, story: Story
) -> Iterator[BakeMachine]:
    """The machine, in the target that the bake's journal names. Raises: what its `find` raises."""
    from amibuild import bake_machine
    from amibuild.cli.target import open_target
    from amibuild.recipe.load import load_recipe
    from amibuild.steps.launch import Purpose

    state_dir = recipe.absolute().parent / ".amibuild"
    target = TargetName(bake_machine.where(state_dir, bake_id).target)
    wanted = load_recipe(recipe)
    with open_target(wanted, target, MachineName.AUTO, story, base=False) as there:
        purpose = Purpose(machine.value) if machine else None
        yield bake_machine.find(there.cloud, state_dir, bake_id, purpose)


def timeout_of(text: str) -> int:
    """Raises: UsageError for what Run Command does not take."""
    from amibuild.errors import UsageError

    timeout_s = int(duration_s("--timeout", text))
    if not 5 <= timeout_s <= 48 * 3600:
        raise UsageError(f"--timeout: {text} is not between 5s and 48h")
    return timeout_s
