"""`amibuild`: the entry point. Each verb group is a file beside this one.

`--help` must take at most 0.25 s, so nothing heavy is imported before a verb runs: not boto3, not
pydantic, not rich. tests/unit/test_cli_speed.py holds it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from amibuild import __version__
from amibuild.cli import (
    artifacts,
    bake,
    bakes,
    channels,
    completion,
    dev,
    doctor,
    images,
    local,
    machine,
    policy,
    promote,
    prune,
    reap,
    revoke,
    service,
    start,
    terraform,
    verify,
)
from amibuild.cli.session import Common

# The root of what a wrong command line raises, which typer has no public name for.
CLICK_ERROR: Any = typer.BadParameter.__mro__[2]
# The verbs that take a command, and where it runs.
COMMAND_OF = {"local shell": "INSTANCE", "run": "BAKE_ID"}


class Verbs(TyperGroup):
    """Says what is wrong with a command line as a person would."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CLICK_ERROR as error:
            error.message = reworded(error)
            raise


def reworded(error: Any) -> str:
    """Without pydantic's words, by which typer checks values, and with what was meant."""
    message: str = error.message.removeprefix("Value error, ")
    verb = error.ctx.command_path if error.ctx else ""
    where = COMMAND_OF.get(verb.partition(" ")[2])
    if where and hasattr(error, "option_name"):
        message += f"; a command stands behind --, as in {verb} {where} -- ls -la"
    return message


# rich would draw the help, and costs 0.1 s on the way; a bug should show its own traceback.
app = typer.Typer(
    name="amibuild",
    cls=Verbs,
    help="Golden AMIs from a short recipe: baked, booted, proven, recorded.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad recipe or usage, 3 verification failed, "
    "4 leftovers remain, 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# They may stand behind the verb too: nobody remembers which side.
ANYWHERE = frozenset({"--debug", "--no-color"})


@app.callback()
def common(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=lambda v: _tell(v)
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            help="Tell everything: tracebacks, each call of AWS with its time and its retries. May "
            "stand anywhere.",
        ),
    ] = False,
    no_color: Annotated[
        bool, typer.Option("--no-color", help="No colour, as with NO_COLOR. May stand anywhere.")
    ] = False,
) -> None:
    context.obj = Common(debug=debug, color=not no_color)


def _tell(wanted: bool) -> None:
    if wanted:
        typer.echo(f"amibuild {__version__}")
        raise typer.Exit


app.command("bake")(bake.bake)
app.command("plan")(bake.plan)
app.command("dev")(dev.dev)
app.command("verify")(verify.verify)
app.command("bakes")(bakes.bakes)
app.command("logs")(bakes.logs)
app.command("shell")(machine.shell)
app.command("run")(machine.run)
app.command("copy")(machine.copy)
app.command("images")(images.images)
app.command("show")(images.show)
app.command("promote")(promote.promote)
app.command("rollback")(promote.rollback)
app.add_typer(channels.app, name="channels")
app.command("revoke")(revoke.revoke)
app.command("terraform")(terraform.terraform)
app.command("prune")(prune.prune)
app.command("reap")(reap.reap)
app.command("policy")(policy.policy)
app.add_typer(artifacts.app, name="artifacts")
app.add_typer(local.app, name="local")
app.add_typer(service.app, name="service")
app.command("doctor")(doctor.doctor)
app.command("init")(start.init)
app.command("schema")(start.schema)


def hoisted(arguments: Sequence[str]) -> list[str]:
    """The arguments with --debug and --no-color in front; what follows `--` stays."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    head, tail = list(arguments[:end]), list(arguments[end:])
    found = [word for word in head if word in ANYWHERE]
    return [*found, *(word for word in head if word not in ANYWHERE), *tail]


def run() -> None:
    """The console script."""
    _open_closed()
    completion.join_words(os.environ)
    words = hoisted(sys.argv[1:])
    try:
        if "--json" in words[: words.index("--") if "--" in words else None]:
            sys.exit(_with_json_errors(words))
        app(words, prog_name="amibuild")
    except KeyboardInterrupt:
        # Before a verb has begun to catch signals there is nothing to clean up.
        os._exit(130)


def _open_closed() -> None:
    """A stream that the caller closed is None in Python: the story may go nowhere, a result not."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # open until the end
    if sys.stdout is None:
        sys.stderr.write("failed: stdout is closed, and a result would be lost\n")
        raise SystemExit(1)


def _with_json_errors(words: Sequence[str]) -> int:
    """The exit code. A wrong option is an object on stdout too, as every failure is."""
    try:
        return int(app(words, prog_name="amibuild", standalone_mode=False) or 0)
    except typer.Abort:  # Ctrl-C before a verb has begun to catch signals
        return 130
    except CLICK_ERROR as error:
        error.show()
        body = {"kind": "UsageError", "message": error.format_message(), "hint": None}
        typer.echo(json.dumps({"error": {**body, "exit_code": error.exit_code}}, indent=2))
        return int(error.exit_code)


if __name__ == "__main__":
    run()
