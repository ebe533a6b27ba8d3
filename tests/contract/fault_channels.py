"""Every AWS call of a promotion, a revocation and a prune, with every fault that it can have.

As fault_matrix.py does with bakes: some moves are recorded, and each cell that follows from their
calls is one more move with its fault. Afterwards a channel must have its old image or the new one,
and the new one when the move said so; an image that was to be revoked must not be promotable once
anything was done to it; nothing that is used must be removed, and what is removed by half must be
told (fault_prune.py). After `reap`, without faults, the same move comes through.

`python -m tests.contract.fault_channels` runs all of it and prints its size and result.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import boto3

from amibuild import revoke
from amibuild.errors import AmibuildError, AwsError, ChannelBusy, PromotionRefused
from amibuild.local.faults import Fault
from amibuild.local.service import Options, Service
from amibuild.reap import reap
from tests.contract.conftest import KEY, Aws
from tests.contract.fault_cells import Call, Cell, Kind, Run, both, cells_of
from tests.contract.fault_matrix import calls_in, session
from tests.contract.fault_prune import Pruning
from tests.contract.imaged import snapshot_of
from tests.contract.promoted import Stage
from tests.contract.shelf import Shelf
from tests.contract.swift import SwiftClock, swift

FIRST, NEXT, BACK = Run("the first"), Run("another"), Run("a rollback")
REVOKED, PRUNED = Run("a revocation"), Run("a prune")
RUNS = (FIRST, NEXT, BACK, REVOKED, PRUNED)


@dataclass(frozen=True)
class Outcome:
    """How one move went; `wrong` is what must not be, whatever fault it had."""

    error: AmibuildError | None
    wrong: tuple[str, ...]
    failures: Counter[str]
    calls: Counter[Call]
    unsure: frozenset[Call] = frozenset()


def every_cell(recorded: Mapping[Run, Outcome]) -> list[Cell]:
    """Each call of each run, every time that it is made: it does something else each time."""
    return [
        cell
        for run, seen in recorded.items()
        for call in sorted(seen.calls, key=lambda call: call.name)
        for nth in range(1, seen.calls[call] + 1)
        for cell in cells_of(run, call, nth, sure=call not in seen.unsure)
    ]


class Lab:
    """Moves, one after the other, each in a recipe of its own. Closed by `close`."""

    def __init__(self, folder: Path, session: boto3.Session) -> None:
        self._folder = folder
        self._log = folder / "calls"
        options = Options(folder / "data", machine="none", call_log=self._log, key=KEY)
        self._aws = Aws(Service(options), session)
        self._snapshot = snapshot_of(self._aws, self._aws.image())
        self._numbers = itertools.count()

    def close(self) -> None:
        self._aws.service.close()

    def record(self) -> dict[Run, Outcome]:
        """How each run goes without a fault of a cell."""
        found = {}
        for run in RUNS:
            once, again = self.perform(run), self.perform(run)
            calls, unsure = both(once.calls, again.calls)
            found[run] = replace(once, calls=calls, unsure=unsure)
        return found

    def perform(self, run: Run, faults: Sequence[str] = ()) -> Outcome:
        with swift() as clock:
            # Clients of its own: what they have learnt of one fault must not change another.
            self._aws.__dict__.pop("cloud", None)
            folder = self._folder / f"recipe-{next(self._numbers)}"
            scene: _Scene | Pruning
            if run is PRUNED:
                scene = Pruning(Shelf(self._aws, folder, self._snapshot), clock)
            else:
                stage = Stage(self._aws, folder, snapshot=self._snapshot)
                scene = _Scene(run, stage, clock)
            begun = len(calls_in(self._log))
            ordered = self._aws.service.scripted.faults
            ordered.order([Fault.parse(fault) for fault in faults])
            error = scene.play()
            ordered.order(())
            calls = calls_in(self._log)[begun:]
            wrong = (*scene.after(error), *scene.again())
        return Outcome(
            error=error,
            wrong=wrong,
            failures=Counter(call["error"] for call in calls if call["error"]),
            calls=Counter(Call(call["service"], call["operation"]) for call in calls),
        )


class _Scene:
    """One move of one recipe: what was before, and what may be after."""

    def __init__(self, run: Run, stage: Stage, clock: SwiftClock) -> None:
        self._run, self._stage, self._clock = run, stage, clock
        self._new = stage.image("2026.11.22.1")
        self._old: str | None = None
        if run is not FIRST:
            self._old = stage.image("2026.11.21.1")
            stage.put(self._old)
        if run in (BACK, REVOKED):
            stage.put(self._new)
            self._old, self._new = self._new, self._old or ""

    def play(self) -> AmibuildError | None:
        try:
            self._move()
        except AmibuildError as error:
            return error
        return None

    def _move(self) -> None:
        stage, cloud = self._stage, self._stage.aws.cloud
        if self._run is REVOKED:
            plan = revoke.plan_revocation(cloud, stage.recipe, self._old or "")
            revoke.carry_out(
                cloud,
                stage.path,
                plan,
                target="local",
                reason="it is slow",
                subscribers=(),
                clock=self._clock,
            )
        elif self._run is BACK:
            stage.roll_back(clock=self._clock)
        else:
            stage.promote(self._new, clock=self._clock)

    def after(self, error: AmibuildError | None) -> list[str]:
        has = self._stage.points_at()
        if self._run is REVOKED:
            return self._half_revoked(error)
        wrong = []
        if has not in (self._old, self._new):
            wrong.append(f"the channel has {has}")
        if error is None and has != self._new:
            wrong.append(f"it said that it is done, and the channel has {has}")
        return wrong

    def _half_revoked(self, error: AmibuildError | None) -> list[str]:
        facts = self._stage.aws.cloud.images.image(self._old or "")
        touched = facts.state == "disabled" or facts.deprecation is not None
        done = facts.state == "disabled" and facts.deprecation is not None
        wrong = []
        if error is None and not done:
            wrong.append(f"it said that it is done, and the image is {facts.state}")
        if touched or error is None:
            try:
                self._stage.promote(facts.id, "staging")
            except PromotionRefused as refused:
                if "revoked" not in refused.message:
                    wrong.append(f"it is refused for another reason: {refused.message}")
            else:
                wrong.append("it can be promoted")
        return wrong

    def again(self) -> list[str]:
        """Once `reap` has been there the same move comes through, or has nothing to do."""
        stage = self._stage
        left = reap(
            stage.aws.cloud,
            stage.path.parent / ".amibuild",
            target="local",
            dry_run=False,
            clock=self._clock,
        ).left
        wrong = [f"reap could not remove {one.id}" for one in left]
        if self._run is BACK and stage.points_at() == self._new:
            return wrong  # a second one would go further
        error = self.play()
        if isinstance(error, ChannelBusy):
            error = self.play()  # what it had written came to be there between its looks
        if error is not None:
            wrong.append(f"after reap it fails: {error!r}")
        if self._run is not REVOKED and stage.points_at() != self._new:
            wrong.append(f"after reap and again the channel has {stage.points_at()}")
        return wrong


def problems(cell: Cell, seen: Outcome, plain: Outcome) -> list[str]:
    """What is wrong with how a cell went; `plain` is its run without the fault."""
    found = list(seen.wrong)
    if cell.must_pass and type(seen.error) is not type(plain.error):
        found.append(f"ended otherwise than without it: {seen.error!r}")
    bare = isinstance(seen.error, AwsError) and seen.error.hint is None
    if cell.kind in {Kind.DENIED, Kind.SHORT_ON} and bare:
        found.append(f"no hint: {seen.error!r}")
    if cell.must_hit and not set(cell.codes) & set(seen.failures):
        found.append(f"the fault never hit: {dict(seen.failures)}")
    return found


def main() -> int:
    """Words on the command line pick the cells that have them all in their names."""
    began, wrong, number = monotonic(), list[str](), 0
    with tempfile.TemporaryDirectory() as name, closing(Lab(Path(name), session())) as lab:
        recorded = lab.record()
        for cell in every_cell(recorded):
            if all(word in str(cell) for word in sys.argv[1:]):
                number += 1
                seen = lab.perform(cell.run, cell.faults)
                if found := problems(cell, seen, recorded[cell.run]):
                    wrong.append(f"{cell}: {'; '.join(found)}")
    for line in wrong:
        sys.stderr.write(f"{line}\n")
    sys.stdout.write(f"{number} cells, {len(wrong)} wrong, in {monotonic() - began:.0f} s\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
