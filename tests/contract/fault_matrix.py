"""Every AWS call of a bake and of its clean-up, with every fault that is possible for it.

Some bakes are recorded (fault_cells.RUNS), and each cell that follows from their calls is one more
bake with its fault. What is in the account afterwards must be what was there before, the result,
and exactly what was reported with exit code 4; and after `reap`, without faults, only the result.
One run is a `reap` itself, of a bake that could remove nothing.

What it leaves out: a call at other times than its first and its last in a run; two faults at once,
but for a creation whose answer is lost and which is not seen at first; what a creation does not
see yet of what it is about; `verify` and `dev`, which go through the same steps as a bake; and the
calls that test_fault_matrix.py names (LEFT_OUT), each with the reason.
FORGOTTEN may leave what nobody reports.

`python -m tests.contract.fault_matrix` runs all of it and prints its size and result.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic, process_time

import boto3

from amibuild.bake import BakeResult
from amibuild.errors import AmibuildError, AwsError
from amibuild.local.faults import Fault
from tests.contract.account import UPLOAD, account, attached, await_ends, stored, with_attached
from tests.contract.conftest import KEY, REGION, Aws
from tests.contract.fault_cells import (
    FORGOTTEN,
    RUNS,
    Call,
    Cell,
    Kind,
    Run,
    Sort,
    both,
    cells,
    sort_of,
)
from tests.contract.fault_runs import BUCKET, Scene, run_endpoint, run_project
from tests.contract.swift import swift

# In one account: what has ended is listed for an hour.
BAKES_EACH = 30


@dataclass(frozen=True)
class Outcome:
    """How one bake went. `done`: it handed over a result, whatever it raised then.

    `new` and `gone` are the account's difference beyond that result, `reported` what exit code 4
    stands for; `after_reap` is the difference that is left after `reap`. `failures` are the codes
    with which calls failed, `unsure` the calls that another recording of the run may lack.
    """

    error: AmibuildError | None
    done: bool
    new: set[str]
    gone: set[str]
    reported: set[str]
    twice: list[str]
    failures: Counter[str]
    not_reaped: list[str]
    after_reap: set[str]
    calls: Counter[Call]
    unsure: frozenset[Call] = frozenset()


class Lab:
    """Bakes, one after the other, in accounts that the runs of RUNS need. One at a time: the
    endpoint's books are the process's. Closed by `close`."""

    def __init__(self, folder: Path, session: boto3.Session) -> None:
        self._folder = folder
        self._session = session
        self._run: Run | None = None
        self._aws: Aws | None = None
        self._before: set[str] = set()
        self._number = 0

    def close(self) -> None:
        if self._aws is not None:
            self._aws.service.close()

    def record(self) -> dict[Run, Outcome]:
        """How each run goes without a fault of a cell: what it calls, and how often."""
        found = {}
        for run in RUNS:
            once = self.perform(run)
            if run.rare:
                reads = {call for call in once.calls if sort_of(call.name) is Sort.READ}
                found[run] = replace(once, unsure=frozenset(reads))
                continue
            calls, unsure = both(once.calls, self.perform(run).calls)
            found[run] = replace(once, calls=calls, unsure=unsure)
        return found

    def perform(self, run: Run, faults: Sequence[str] = ()) -> Outcome:
        """One bake with these faults, and the `reap` that follows it without any."""
        self._number += 1
        aws = self._account(run)
        folder = self._folder / f"{self._number}"
        with swift() as clock:
            scene = Scene(run, aws, run_project(run, folder), clock)
            scene.prepare()
            begun = len(self._calls())
            aws.service.scripted.faults.order([Fault.parse(f) for f in (*run.faults, *faults)])
            scene.play()
            aws.service.scripted.faults.order(())
            calls = self._calls()[begun:]
            after = _settled(aws, self._before)
            owners = attached(aws) if after != self._before else {}
            made = _result(scene.told, owners)
            # Of a region that could not be looked into, nobody says what is there.
            told = after - self._before if scene.unreached else scene.reported()
            reported = with_attached(told, owners)
            # `kept`: an image that came late is spared without, for `bake --resume`.
            report = scene.reap()
            reaped = _whole(aws) if report.removed else after
            outcome = Outcome(
                error=scene.error,
                done=scene.done,
                new=after - self._before - made,
                gone=self._before - after,
                reported=reported - made,
                twice=scene.twice,
                failures=Counter(call["error"] for call in calls if call["error"]),
                not_reaped=[left.id for left in report.left],
                after_reap=(reaped - made) ^ self._before,
                calls=Counter(Call(call["service"], call["operation"]) for call in calls),
            )
            if outcome.after_reap or outcome.twice:
                self._run = None  # the next bake gets an account without it
            else:
                _forget(aws, scene.told, made)
        return outcome

    def _account(self, run: Run) -> Aws:
        """The one of the last bake, when it was of the same run; its clients are new each time:
        what they have learnt of one fault must not change another."""
        if self._aws is None or self._run != run or self._number % BAKES_EACH == 0:
            self.close()
            self._run = run
            data = self._folder / f"{self._number}-data"
            self._aws = run_endpoint(run, data, data.with_suffix(".log"), self._session)
            self._before = _whole(self._aws)
        self._aws.__dict__.pop("cloud", None)
        return self._aws

    def _calls(self) -> list[dict[str, str]]:
        assert self._aws is not None and self._aws.service.options.call_log is not None
        return calls_in(self._aws.service.options.call_log)


def calls_in(log: Path) -> list[dict[str, str]]:
    """What an endpoint has noted of its calls, in order."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def _whole(aws: Aws) -> set[str]:
    """All that is in the account, by its ids and names."""
    return set().union(*account(aws).values(), *stored(aws).values())


def _settled(aws: Aws, before: set[str]) -> set[str]:
    """The same once no machine is on its way out."""
    there = _whole(aws)
    if any(new.startswith("i-") for new in there - before):
        await_ends(aws)
        there = _whole(aws)
    return there


def _result(told: BakeResult | None, owners: dict[str, str]) -> set[str]:
    """What a bake that handed over a result leaves on purpose."""
    if told is None:
        return set()
    return {_manifest(told), *with_attached({told.image_id}, owners)}


def _manifest(told: BakeResult) -> str:
    return f"s3://{BUCKET}/amibuild/manifests/{told.image_name}.json"


def _forget(aws: Aws, told: BakeResult | None, made: set[str]) -> None:
    """Removes a result: with a hundred of them in the account, each bake would take longer."""
    if told is None:
        return
    aws.ec2.deregister_image(ImageId=told.image_id)
    for snapshot in (thing for thing in made if thing.startswith("snap-")):
        aws.ec2.delete_snapshot(SnapshotId=snapshot)
    key = _manifest(told).removeprefix(f"s3://{BUCKET}/")
    if aws.s3.list_buckets()["Buckets"]:
        aws.s3.delete_object(Bucket=BUCKET, Key=key)


def _no_parts(things: set[str]) -> set[str]:
    return {one for one in things if UPLOAD not in one}


def _is_bare(error: AmibuildError | None, call: Call) -> bool:
    """An error about this call that says nothing of what to do."""
    return isinstance(error, AwsError) and error.operation == call.name and error.hint is None


def problems(cell: Cell, seen: Outcome, plain: Outcome) -> list[str]:
    """What is wrong with how a cell went; `plain` is its run without the fault."""
    found = []
    if cell.call.name in FORGOTTEN and cell.kind is Kind.DENIED:
        seen = replace(seen, new=_no_parts(seen.new), after_reap=_no_parts(seen.after_reap))
    # An upload in parts is reported as the object that it would have been.
    seen = replace(seen, new={one.partition(UPLOAD)[0] for one in seen.new})
    # Who may not look can't see a machine go that it has ended: that one is reported as well.
    blind = sort_of(cell.call.name) is Sort.READ and seen.reported >= seen.new
    if (seen.new != seen.reported and not blind) or seen.gone:
        found.append(
            f"there is {seen.new or 'nothing'} more, and {seen.reported or 'nothing'} was "
            f"reported; {seen.gone or 'nothing'} is gone"
        )
    if seen.not_reaped or seen.after_reap:
        found.append(f"after reap {seen.after_reap} differs, {seen.not_reaped} was refused")
    if seen.twice:
        found.append(f"made twice: {seen.twice}")
    if cell.must_pass and (seen.done, type(seen.error)) != (plain.done, type(plain.error)):
        found.append(f"ended otherwise than without it: {seen.error!r}")
    if cell.kind in {Kind.DENIED, Kind.SHORT_ON} and _is_bare(seen.error, cell.call):
        found.append(f"no hint: {seen.error!r}")
    if cell.must_hit and not set(cell.codes) & set(seen.failures):
        found.append(f"the fault never hit: {dict(seen.failures)}")
    return found


@dataclass
class Tally:
    """What the README quotes."""

    clean: int = 0
    reported: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, cell: Cell, seen: Outcome, plain: Outcome) -> None:
        wrong = problems(cell, seen, plain)
        if wrong:
            self.wrong.append(f"{cell}: {'; '.join(wrong)}")
        elif seen.reported:
            self.reported += 1
        else:
            self.clean += 1

    @property
    def cells(self) -> int:
        return self.clean + self.reported + len(self.wrong)

    def __str__(self) -> str:
        text = f"{self.cells} cells: {self.clean} clean, {self.reported} with reported leftovers"
        return f"{text}, {len(self.wrong)} wrong" if self.wrong else text


def all_cells(recorded: Mapping[Run, Outcome]) -> list[Cell]:
    return cells(
        {run: seen.calls for run, seen in recorded.items()},
        {run: seen.unsure for run, seen in recorded.items()},
    )


def session() -> boto3.Session:
    return boto3.Session(
        aws_access_key_id=KEY.id, aws_secret_access_key=KEY.secret, region_name=REGION
    )


def main() -> int:
    """Words on the command line pick the cells that have them all in their names."""
    began = monotonic()
    tally = Tally()
    with tempfile.TemporaryDirectory() as name, closing(Lab(Path(name), session())) as lab:
        recorded = lab.record()
        for cell in all_cells(recorded):
            if all(word in str(cell) for word in sys.argv[1:]):
                tally.add(cell, lab.perform(cell.run, cell.faults), recorded[cell.run])
    for line in tally.wrong:
        sys.stderr.write(f"{line}\n")
    sys.stdout.write(f"{tally}, in {monotonic() - began:.0f} s, {process_time():.0f} s of a core\n")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
