"""A builder that costs less and may be taken back: asked for first, and noticed when it is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from amibuild.aws.session import Cloud
from amibuild.errors import AmibuildError, AwsError, NoCapacity, TakenBack
from amibuild.journal import Journal, Noted
from amibuild.names import BakeId, InstanceId
from amibuild.scope import Scope
from amibuild.steps.launch import Launch, launch
from amibuild.wait import Observer, Waiting

# Nobody reports the end of a job on a machine that is gone, so a long wait looks for itself.
LOOK_EVERY_S = 15.0


def launch_builder(
    cloud: Cloud, scope: Scope, journal: Journal, bake_id: BakeId, wanted: Launch
) -> InstanceId:
    """On spot, where that is wanted and is to be had in any of the types and zones; else on demand,
    in the same order. It runs.

    Raises: NoCapacity when neither is; what `launch` raises else.
    """
    try:
        return launch(cloud, scope, bake_id, wanted, journal.show).id
    except NoCapacity as shortage:
        if wanted.spot is None:
            raise
        why = shortage.code
    journal.write(Noted(text=f"{why}: no spot machine is to be had, so it is one on demand"))
    return launch(cloud, scope, bake_id, replace(wanted, spot=None), journal.show).id


@contextmanager
def loss_told(
    cloud: Cloud, builder: InstanceId, no_loss: tuple[type[AmibuildError], ...] = ()
) -> Iterator[None]:
    """Around what needs the builder: an error that comes of its loss is raised as that, but for
    those of `no_loss`.

    Raises: TakenBack.
    """
    try:
        yield
    except TakenBack:
        raise
    except AmibuildError as error:
        if isinstance(error, no_loss):
            raise
        with suppress(AwsError):  # then the first error is all that is known
            _refuse_lost(cloud, builder, error)
        raise


class LossWatch:
    """An observer of waits, which goes on being told; in between it looks whether the builder is
    still there.

    Raises: TakenBack, out of the wait.
    """

    def __init__(self, cloud: Cloud, builder: InstanceId, show: Observer) -> None:
        self._cloud = cloud
        self._builder = builder
        self._show = show
        self._looked_s = 0.0

    def __call__(self, waiting: Waiting) -> None:
        self._show(waiting)
        if waiting.elapsed_s < self._looked_s:  # that was in another wait
            self._looked_s = 0.0
        if waiting.elapsed_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = waiting.elapsed_s
            with suppress(AwsError):  # the next look may do better
                _refuse_lost(self._cloud, self._builder)


def _refuse_lost(cloud: Cloud, builder: InstanceId, error: AmibuildError | None = None) -> None:
    facts = cloud.ec2.instance(builder)
    if facts.taken_back:
        raise TakenBack(what=builder, state=facts.state, reason=facts.reason) from error
