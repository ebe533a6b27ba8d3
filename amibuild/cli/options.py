"""Options that several verbs share. Nothing heavy is imported here: `--help` reads this file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from amibuild.cli import completion

DEFAULT_RECIPE = Path(completion.DEFAULT_RECIPE)


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


ImageArgument = Annotated[
    str,
    typer.Argument(
        metavar="IMAGE",
        help="AMI id, AMI name, version, or @CHANNEL for the one that it has.",
        autocompletion=completion.images,
    ),
]
ChannelArgument = Annotated[
    str,
    typer.Argument(
        metavar="CHANNEL",
        help="One of the recipe's channels.order.",
        autocompletion=completion.channels,
    ),
]
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
