"""Options that several verbs share. Nothing heavy is imported here: `--help` reads this file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_RECIPE = Path("amibuild.toml")


class TargetName(StrEnum):
    LOCAL = "local"
    AWS = "aws"


class MachineName(StrEnum):
    AUTO = "auto"
    NSPAWN = "nspawn"
    QEMU = "qemu"
    NONE = "none"


class OnErrorName(StrEnum):
    CLEAN = "clean"
    KEEP = "keep"
    ASK = "ask"


RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="The recipe.", show_default=True)
]
RecipeOption = Annotated[
    Path, typer.Option("--recipe", metavar="RECIPE", help="The recipe.", show_default=True)
]
TargetOption = Annotated[
    TargetName | None,
    typer.Option(
        "--target",
        envvar="AMIBUILD_TARGET",
        help="This machine or EC2; else the recipe's [target] default.",
        show_default=False,
    ),
]
MachineOption = Annotated[
    MachineName,
    typer.Option("--machine", help="What the local target boots; auto takes what the host can."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Overrides the recipe, such as builder.volume_gib=12. Repeatable.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
