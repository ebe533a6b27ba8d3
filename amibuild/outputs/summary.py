"""A bake in Markdown, for the page that a CI shows of a run: what is new in the image. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from amibuild.outputs.difference import Changed, changed, count_text
from amibuild.outputs.manifest import Manifest
from amibuild.outputs.markdown import cell, code

# A page of a CI has an end: GitHub takes 1 MiB of a step.
SHOWN = 50


def summary(made: Manifest, before: Manifest | None) -> str:
    """Of a new image, and what differs from the one before it, where that is known."""
    image = made.image
    passed = sum(check.outcome == "passed" for check in made.fresh_checks)
    lines = [
        f"## {image.name}",
        "",
        "| | |",
        "| --- | --- |",
        f"| AMI id | `{image.id}` in {image.region} |",
        f"| source | `{made.source.ami_id}` {cell(code(made.source.name))} |",
        f"| proven | {passed} checks passed on a fresh boot, "
        f"{len(made.hygiene.passed)} of the finished disk |",
        f"| took | {made.seconds.total:.0f} s |",
        "",
    ]
    if before is None:
        lines += ["There is no manifest of an earlier image to compare it with."]
    else:
        lines += [f"### Since {before.image.name}", "", *_difference(before, made)]
    return "\n".join(lines).rstrip() + "\n"


def summary_of_reused(name: str, image_id: str, region: str) -> str:
    return (
        f"## {name}\n\nNothing has changed: `{image_id}` in {region} is used again. "
        "No machine was started.\n"
    )


def _difference(before: Manifest, after: Manifest) -> Iterator[str]:
    steps = changed(
        {step.name: step.digest[:12] for step in before.steps},
        {step.name: step.digest[:12] for step in after.steps},
    )
    source = changed({"source AMI": before.source.ami_id}, {"source AMI": after.source.ami_id})
    services = changed(dict.fromkeys(before.services, ""), dict.fromkeys(after.services, ""))
    parts: tuple[tuple[str, Sequence[Changed]], ...] = (
        ("Source", source),
        ("Steps", steps),
        ("Services", services),
        ("Packages", changed(before.packages, after.packages)),
        (
            "Users",
            changed(dict.fromkeys(before.users, ""), dict.fromkeys(after.users, "")),
        ),
        (
            "Units that start",
            changed(
                dict.fromkeys(before.units_enabled, ""), dict.fromkeys(after.units_enabled, "")
            ),
        ),
    )
    found = [(what, things) for what, things in parts if things]
    if not found:
        yield "The same source, steps, packages, users and units."
    for what, things in found:
        yield f"**{what}**: {count_text(things)}"
        yield ""
        yield "| name | before | after |"
        yield "| --- | --- | --- |"
        for thing in things[:SHOWN]:
            yield f"| {cell(code(thing.name))} | {_side(thing.before)} | {_side(thing.after)} |"
        if len(things) > SHOWN:
            yield f"| and {len(things) - SHOWN} more | | |"
        yield ""


def _side(value: str | None) -> str:
    """As code: a version may hold what Markdown would read as a mark, such as tildes."""
    if value is None:
        return "none"
    return cell(code(value)) if value else "there"
