"""What two parts of one image would both want: a unit, a port, a name that is taken already.

Each part is right by itself, so this is found where a recipe puts them together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from amibuild.errors import Problem
from amibuild.library.service import Service
from amibuild.library.unit import needed_units
from amibuild.recipe.locate import KeyPath
from amibuild.recipe.model import Recipe

# Other things have these names below /run/amibuild, where every step has a folder on the builder.
TAKEN = frozenset(
    {
        "boot-id",
        "checks",
        "commands",
        "first-boot",
        "hygiene",
        "inventory",
        "keep-awake",
        "reboot",
        "recheck",
        "secrets",
        "seed",
        "still-there",
    }
)


def collisions(recipe: Recipe, services: Mapping[str, Service]) -> Iterator[Problem]:
    """`services` are those of the recipe that could be read."""
    for key, names in (
        ("steps", recipe.provision.steps),
        ("services", recipe.provision.services),
    ):
        for index, name in enumerate(names):
            if name in TAKEN:
                at: KeyPath = ("provision", key, index)
                problem = f"{name} is a name that amibuild itself uses"
                yield recipe.origin.problem(at, problem, "give it another name")
    yield from _shared(recipe, services)


def _shared(recipe: Recipe, services: Mapping[str, Service]) -> Iterator[Problem]:
    units: dict[str, str] = {}
    ports: dict[tuple[str, int], str] = {}
    for index, name in enumerate(recipe.provision.services):
        at: KeyPath = ("provision", "services", index)
        if name not in services:  # its own file is wrong, which is reported already
            continue
        for unit in (services[name].unit, *needed_units(services[name])):
            if (other := units.setdefault(unit, name)) != name:
                problem = f"{name} and {other} would both have a unit {unit}"
                yield recipe.origin.problem(at, problem, f"give {name} another name")
        for port in services[name].file.ports:
            if (other := ports.setdefault((port.protocol, port.port), name)) != name:
                problem = f"{name} and {other} both listen on {port.port}/{port.protocol}"
                yield recipe.origin.problem(at, problem, f"give {name} a port of its own")
