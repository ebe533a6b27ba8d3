"""A prune that has a fault: what it may leave. fault_channels.py has the calls and the cells."""

from __future__ import annotations

from amibuild.errors import AmibuildError, Leftover, LeftoverError
from amibuild.journal import ResourceKind
from amibuild.prune import carry_out
from amibuild.reap import reap
from amibuild.retention import Rule
from tests.contract.imaged import snapshot_of
from tests.contract.shelf import Shelf
from tests.contract.swift import SwiftClock

RULE = Rule(keep=1, days=30)


class Pruning:
    """Two images and a snapshot without one may go; three images are used, each otherwise."""

    def __init__(self, shelf: Shelf, clock: SwiftClock) -> None:
        self._shelf, self._clock = shelf, clock
        gone = shelf.image("2026.08.31.1")
        self._orphan = snapshot_of(shelf.aws, gone)
        shelf.aws.ec2.deregister_image(ImageId=gone)
        first, launched, second, back, current = shelf.images(5)
        shelf.aws.ec2.create_launch_template(
            LaunchTemplateName=shelf.name, LaunchTemplateData={"ImageId": launched}
        )
        for image in (back, current):
            shelf.put(image)
        self._going = {one: snapshot_of(shelf.aws, one) for one in (first, second)}
        self._used = {one: snapshot_of(shelf.aws, one) for one in (launched, back, current)}

    def play(self) -> AmibuildError | None:
        """As the verb does it."""
        try:
            plan = self._shelf.plan(RULE)
            report = carry_out(
                self._shelf.aws.cloud,
                self._shelf.recipe,
                self._shelf.path,
                plan,
                target="local",
                subscribers=(),
                clock=self._clock,
            )
            if report.left:
                raise LeftoverError(report.left)
        except AmibuildError as error:
            return error
        return None

    def after(self, error: AmibuildError | None) -> list[str]:
        images, snapshots = self._shelf.there(), self._shelf.snapshots()
        told = _ids(error.leftovers if error else ())
        wrong = [
            f"{one} is used, and it or its snapshot is gone"
            for one, snapshot in self._used.items()
            if one not in images or snapshot not in snapshots
        ]
        for one, snapshot in self._going.items():
            if one in images and snapshot not in snapshots:
                wrong.append(f"the snapshot of {one} is gone, and it is there")
            if one not in images and snapshot in snapshots and snapshot not in told:
                wrong.append(f"{one} went without {snapshot}, and nobody was told")
        left = (images & set(self._going)) | (snapshots & {*self._going.values(), self._orphan})
        if error is None and left:
            wrong.append(f"it said that it is done, and {left} are there")
        return wrong

    def again(self) -> list[str]:
        """The next prune goes on, and the one after it has nothing to do. Nothing but a lock is
        `reap`'s."""
        shelf = self._shelf
        shelf.aws.__dict__.pop("cloud", None)  # its clients have learnt of the fault
        reaped = reap(
            shelf.aws.cloud,
            shelf.path.parent / ".amibuild",
            target="local",
            dry_run=False,
            clock=self._clock,
        )
        others = [one for one in reaped.removed if one.kind is not ResourceKind.LOCK]
        wrong = [f"reap removed {one.id}" for one in others]
        error = self.play()
        if error is not None:
            wrong.append(f"the next prune fails: {error!r}")
        if shelf.there() != set(self._used) or shelf.snapshots() != set(self._used.values()):
            wrong.append(f"after the next there is {shelf.there()} and {shelf.snapshots()}")
        if shelf.plan(RULE).needed:
            wrong.append("after the next there is still something to do")
        return wrong


def _ids(left: tuple[Leftover, ...]) -> set[str]:
    return {one.id for one in left}
