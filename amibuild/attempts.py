"""The builder and the image of a bake, in one try or in two.

A spot builder that EC2 takes back costs the bake its work until then; the second one is on demand,
so that it ends.
"""

from __future__ import annotations

from dataclasses import replace

from amibuild.aws.images import Image
from amibuild.aws.session import Cloud
from amibuild.build import Built, Order, build, make_image
from amibuild.errors import TakenBack
from amibuild.journal import Journal, Noted
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
    journal.write(Noted(text=f"EC2 took {lost.what} back: once more, on demand"))
    scope.remove(lost.what)
    again = replace(order, spot=None, earlier=None, logs=order.logs / "again")
    built = build(cloud, scope, journal, stages, bake_id, again)
    made = make_image(cloud, scope, journal, stages, bake_id, again, built, commit)
    return built, *made
