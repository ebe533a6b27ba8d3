"""The builder and the image of a bake, in one try or in two.

A spot builder that EC2 takes back costs the bake its work until then; the second one is on demand,
so that it ends.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from amibuild.aws.images import Image
from amibuild.aws.session import Cloud
from amibuild.build import Built, Order, build, make_image
from amibuild.errors import TakenBack
from amibuild.journal import Journal
from amibuild.names import BakeId
from amibuild.scope import Scope
from amibuild.stage import Stages
from amibuild.steps.capture import Captured


def build_image(
    cloud: Cloud,
    scope: Scope,
    journal: Journal,
    stages: Stages,
    bake_id: BakeId,
    order: Order,
    built: Built | None,
    commit: str,
) -> tuple[Built, Captured, Image]:
    """`built` is what an earlier run of the bake made. Raises: what `build` and `make_image` raise,
    but TakenBack never."""
    try:
        built = built or build(cloud, scope, journal, stages, bake_id, order)
        made = make_image(cloud, scope, journal, stages, bake_id, order, built, commit)
        return built, *made
    except TakenBack as loss:
        lost = loss
    scope.remove(lost.what, why=f"EC2 took {lost.what} back: once more, on demand")
    _set_aside(order.logs, lost.what)
    again = replace(order, spot=None, earlier=None)
    built = build(cloud, scope, journal, stages, bake_id, again)
    made = make_image(cloud, scope, journal, stages, bake_id, again, built, commit)
    return built, *made


def _set_aside(logs: Path, machine: str) -> None:
    """What the lost machine said: the logs of a bake are those of the machine that it goes on with,
    and its readers look for no others."""
    for log in logs.glob("*.log"):
        aside = logs / machine
        aside.mkdir(exist_ok=True)
        log.rename(aside / log.name)
