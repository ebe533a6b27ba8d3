"""`amibuild run`, `shell` and `copy`: root on the machine of a bake that runs, or that was kept."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amibuild.cli.bake import duration_s
from amibuild.cli.completion import bake_ids, paths_to_copy
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
    """Run a command as root on a bake's builder; ends with its exit code, its stdin is empty.

    Over SSH its output comes as it goes on, and Ctrl-C ends it; over Run Command it comes at the
    end.
    """
    with session(context, as_json=as_json) as verb:
        import shlex

        timeout_s = timeout_of(timeout)
        with opened(recipe, bake_id, machine, verb.story) as found:
            script = f"{shlex.join(command)}\n".encode()
            if as_json:
                ran = found.run(script, timeout_s=timeout_s)
                code = ran.exit_code
                said = {
                    "machine": found.id,
                    "exit_code": code,
                    "stdout": ran.stdout.decode(errors="replace"),
                    "stderr": ran.stderr.decode(errors="replace"),
                }
                verb.result("", said)
            else:
                code = shown(found, script, timeout_s)
    raise typer.Exit(code)


def shell(
    context: typer.Context,
    bake_id: BakeIdArgument,
    machine: WhichOption = None,
    timeout: TimeoutOption = "1h",
    recipe: RecipeOption = DEFAULT_RECIPE,
) -> None:
    """Be root on a bake's builder, or run what is on stdin; ends with the last exit code.

    Over SSH on a terminal of its own; over Run Command a line at a time.
    """
    with session(context, as_json=False) as verb:
        timeout_s = timeout_of(timeout)
        with opened(recipe, bake_id, machine, verb.story) as found:
            if not sys.stdin.isatty():
                code = shown(found, whole_stdin(verb.story.say), timeout_s)
            elif found.live is not None and sys.stdout.isatty():
                from amibuild.cli.raw import raw

                with raw(sys.stdin.fileno(), sys.stdout.fileno()) as near:
                    code = found.live.terminal(near)
            else:
                verb.story.say(HOW)
                code = line_by_line(found.id, lambda script: found.run(script, timeout_s=timeout_s))
    raise typer.Exit(code)


def copy(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A file or a folder.", autocompletion=paths_to_copy),
    ],
    to: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="Its new name, or a folder for it.", autocompletion=paths_to_copy
        ),
    ],
    machine: WhichOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    as_json: JsonOption = False,
) -> None:
    """Copy files to a bake's builder or from it, over SSH. One side is BAKE_ID:PATH.

    With their modes, owners, times, links and holes, as one stream. What goes to a builder is in
    the image that is made of it.
    """
    with session(context, as_json=as_json) as verb:
        from amibuild import copying

        wanted = copying.read_copy(source, to)
        with opened(recipe, wanted.bake_id, machine, verb.story) as found:
            now_at = copying.copy(found, wanted, verb.story.show)
            verb.result(now_at, {"machine": found.id, "source": wanted.source, "path": now_at})


def shown(found: BakeMachine, script: bytes, timeout_s: int) -> int:
    """Runs it, with its output where ours goes; its exit code."""
    if found.live is None:
        return show(found.run(script, timeout_s=timeout_s))
    from amibuild.ui import write_bytes, write_error_bytes

    return found.live.run(script, timeout_s=timeout_s, stdout=write_bytes, stderr=write_error_bytes)


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
        with closing(
            bake_machine.find(there.cloud, state_dir, bake_id, purpose, story.say)
        ) as found:
            yield found


def timeout_of(text: str) -> int:
    """Raises: UsageError for what Run Command does not take."""
    from amibuild.errors import UsageError

    timeout_s = int(duration_s("--timeout", text))
    if not 5 <= timeout_s <= 48 * 3600:
        raise UsageError(f"--timeout: {text} is not between 5s and 48h")
    return timeout_s
