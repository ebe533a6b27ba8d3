"""`python -m amibuild.cli.docs`: writes what in README.md is generated, or checks it.

The help of every verb stands between two markers, so that it can't be stale: `make check` runs
this with --check.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import typer
from typer.main import get_command

from amibuild.cli.main import app

README = Path("README.md")
BEGIN = "<!-- help:begin -->"
END = "<!-- help:end -->"
WIDTH = 80


def verbs() -> Iterator[tuple[str, ...]]:
    """Every command: `("bake",)`, `("local", "up")`. Some groups are one by themselves, too."""
    for command in app.registered_commands:
        yield (str(command.name),)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        callback = group.typer_instance.registered_callback
        if callback is not None and callback.invoke_without_command:
            yield (str(group.name),)
        for command in group.typer_instance.registered_commands:
            yield (str(group.name), str(command.name))


def help_text(verb: tuple[str, ...] = ()) -> str:
    """What `amibuild VERB --help` prints on a terminal of 80 columns."""
    command = get_command(app)
    context = command.make_context("amibuild", [], resilient_parsing=True, terminal_width=WIDTH)
    for word in verb:
        # typer vendors click, so its types have no public names: a group knows its commands.
        command = command.commands[word]  # type: ignore[attr-defined]
        context = command.make_context(
            word, [], parent=context, resilient_parsing=True, terminal_width=WIDTH
        )
    return str(command.get_help(context)).rstrip() + "\n"


def block() -> str:
    """The generated part: the overview, then each verb folded away."""
    parts = ["```text", help_text().rstrip(), "```", ""]
    for verb in verbs():
        name = " ".join(verb)
        parts += [f"<details><summary><code>amibuild {name}</code></summary>", ""]
        parts += ["```text", help_text(verb).rstrip(), "```", "", "</details>"]
    return "\n".join(parts) + "\n"


def refreshed(text: str) -> str:
    """The README with its generated part as it should be."""
    before, begin, rest = text.partition(BEGIN + "\n")
    _, end, after = rest.partition(END + "\n")
    if not (begin and end):
        raise ValueError(f"{README} has no {BEGIN} and {END}")
    return f"{before}{begin}{block()}{end}{after}"


def main(*, check: bool) -> int:
    text = README.read_text()
    wanted = refreshed(text)
    if check and wanted != text:
        typer.echo(f"{README} is stale: run `make docs`", err=True)
        return 1
    if wanted != text:
        README.write_text(wanted)
        typer.echo(f"wrote {README}", err=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
