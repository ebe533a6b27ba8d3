"""Opens the target that the user chose: EC2 itself, or the endpoint on this machine.

The only place that knows both. What comes out is a Cloud either way.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from amibuild.cli.options import MachineName, TargetName

if TYPE_CHECKING:
    from amibuild.aws.session import Cloud
    from amibuild.recipe.model import Recipe
    from amibuild.ui import Story


AWS_HOST = re.compile(r"^https://[^/]+\.(amazonaws\.com(\.cn)?|api\.aws)(/|$)")


@dataclass(frozen=True)
class Opened:
    recipe: Recipe
    cloud: Cloud
    target: str


@contextmanager
def open_target(
    recipe: Recipe,
    chosen: TargetName | None,
    machine: MachineName,
    story: Story,
    *,
    keep: Callable[[], bool] = lambda: False,
    base: bool = True,
    flow: str = "amibuild.aws.session",
) -> Iterator[Opened]:
    """`keep` tells of a failure whether a local endpoint outlives it, whoever started it, until
    `local down`.

    Without `base` the local target makes no base image: enough for a look at what is there.
    `flow` is the module that the verb needs next: it is imported while the endpoint starts, which
    saves half a second of the two that an unchanged bake takes.
    """
    from amibuild.recipe.environment import withheld

    withheld(recipe)  # who needs the values has taken them by now
    importing = threading.Thread(target=import_module, args=(flow,), name="import", daemon=True)
    importing.start()
    target = chosen or TargetName(recipe.target.default.value)
    if target is TargetName.AWS:
        from amibuild.aws.session import connect

        cloud = connect(recipe.aws, endpoint=None)
        # AWS_ENDPOINT_URL may lead elsewhere, and nobody should bake there without knowing.
        elsewhere = "" if AWS_HOST.search(cloud.url) else f", at {cloud.url}"
        story.say(f"target aws: {recipe.aws.region}{elsewhere}")
        yield Opened(recipe, cloud, target.value)
        return
    from amibuild.endpoint import open_endpoint

    with open_endpoint(machine=machine.value, keep=keep, base=base, progress=story.say) as access:
        story.say(f"target local: {access.url}")
        importing.join()
        from amibuild.aws.session import connect

        yield Opened(recipe, connect(recipe.aws, endpoint=access), target.value)


@contextmanager
def open_recipe(
    path: Path,
    chosen: TargetName | None,
    machine: MachineName,
    story: Story,
    *,
    flow: str = "amibuild.aws.session",
) -> Iterator[Opened]:
    """The same for verbs that need neither the steps of a recipe nor a base image."""
    from amibuild.recipe.load import load_recipe

    recipe = load_recipe(path)
    with open_target(recipe, chosen, machine, story, base=False, flow=flow) as opened:
        yield opened
