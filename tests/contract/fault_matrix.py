"""Every AWS call of a bake and of its clean-up, with every fault that is possible for it.

Some bakes are recorded (fault_cells.RUNS), and each cell that follows from their calls is one more
bake with its fault. What is in the account afterwards must be what was there before, the result,
and exactly what was reported with exit code 4; and after `reap`, without faults, only the result.

`python -m tests.contract.fault_matrix` runs all of it and prints its size and result.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic, process_time

import boto3

from amibuild.bake import BakeResult, bake
from amibuild.errors import AmibuildError, AwsError
from amibuild.journal import BakeEnded, Created, Shown
from amibuild.local.faults import Fault
from amibuild.local.service import Options, Service
from amibuild.project import Project, load_project
from amibuild.reap import reap
from amibuild.scope import OnError
from tests.contract.account import account, attached, await_ends, made_twice, stored, with_attached
from tests.contract.builder import Answers, changed
from tests.contract.conftest import KEY, REGION, Aws
from tests.contract.fault_cells import PASSING, RUNS, Call, Cell, Kind, Run, Sort, cells, sort_of
from tests.contract.swift import SwiftClock, swift

# In one account: what has ended is listed for an hour.
BAKES_EACH = 30
BUCKET, PROFILE, ROLE = "a-bucket-of-ours", "a-profile", "a-role"
POLICY = """{"Version": "2012-10-17", "Statement":
[{"Effect": "Allow", "Action": "ssm:*", "Resource": "*"}]}"""
KMS_KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd"
# One step: a second one brings no other calls.
RECIPE = '[image]\nname = "game-host"\n[provision]\nsteps = ["os"]\nservices = []\n'


@dataclass(frozen=True)
class Outcome:
    """How one bake went. `done`: it handed over a result, whatever it raised then.

    `new` and `gone` are the account's difference beyond that result, `reported` what exit code 4
    stands for; `after_reap` is the difference that is left after `reap`. `failures` are the codes
    with which calls failed.
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
        """How each run goes without a fault of a cell: what it calls, and how often.

        Twice, and the fewer: a slow host looks more often.
        """
        found = {}
        for run in RUNS:
            once, again = self.perform(run), self.perform(run)
            found[run] = replace(once, calls=once.calls & again.calls)
        return found

    def perform(self, run: Run, faults: Sequence[str] = ()) -> Outcome:
        """One bake with these faults, and the `reap` that follows it without any."""
        self._number += 1
        aws = self._account(run)
        folder = self._folder / f"{self._number}"
        with swift() as clock:
            project = _project(run, folder)
            begun = len(self._calls())
            ordered = aws.service.scripted.faults
            ordered.order([Fault.parse(fault) for fault in (*run.faults, *faults)])
            error, told, twice = _bake(aws, project, clock)
            ordered.order(())
            calls = self._calls()[begun:]
            after = _settled(aws, self._before)
            owners = attached(aws) if after != self._before else {}
            made = _result(told, owners)
            left = {leftover.id for leftover in error.leftovers} if error else set()
            reported = with_attached(left, owners)
            # `kept`: an image that came late is spared without, for `bake --resume`.
            report = reap(
                aws.cloud, project.state_dir, target="local", dry_run=False, kept=True, clock=clock
            )
            reaped = _whole(aws) if report.removed else after
            outcome = Outcome(
                error=error,
                done=told is not None,
                new=after - self._before - made,
                gone=self._before - after,
                reported=reported - made,
                twice=twice,
                failures=Counter(call["error"] for call in calls if call["error"]),
                not_reaped=[left.id for left in report.left],
                after_reap=(reaped - made) ^ self._before,
                calls=Counter(Call(call["service"], call["operation"]) for call in calls),
            )
            if outcome.after_reap or outcome.twice:
                self._run = None  # the next bake gets an account without it
            else:
                _forget(aws, told, made)
        return outcome

    def _account(self, run: Run) -> Aws:
        """The one of the last bake, when it was of the same run; its clients are new each time:
        what they have learnt of one fault must not change another."""
        if self._aws is None or self._run != run or self._number % BAKES_EACH == 0:
            self.close()
            self._run = run
            data = self._folder / f"{self._number}-data"
            self._aws = _endpoint(run, data, data.with_suffix(".log"), self._session)
            self._before = _whole(self._aws)
        self._aws.__dict__.pop("cloud", None)
        return self._aws

    def _calls(self) -> list[dict[str, str]]:
        assert self._aws is not None and self._aws.service.options.call_log is not None
        return calls_in(self._aws.service.options.call_log)


def calls_in(log: Path) -> list[dict[str, str]]:
    """What an endpoint has noted of its calls, in order."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def _bake(
    aws: Aws, project: Project, clock: SwiftClock
) -> tuple[AmibuildError | None, BakeResult | None, list[str]]:
    """What it raised, what it handed over before, and what it made twice on the way."""
    told: list[BakeResult] = []
    twice: list[str] = []

    def look(shown: Shown) -> None:
        if isinstance(shown, Created | BakeEnded):
            twice.extend(made_twice())

    error: AmibuildError | None = None
    try:
        bake(
            project,
            aws.cloud,
            target="local",
            if_changed=False,
            on_error=OnError.CLEAN,
            subscribers=(look,),
            on_result=told.append,
            clock=clock,
        )
    except AmibuildError as caught:
        error = caught
    return error, told[0] if told else None, sorted(set(twice))


def _endpoint(run: Run, data: Path, log: Path, session: boto3.Session) -> Aws:
    """An account with what the recipe names."""
    answers = Answers()
    if run.unproven:
        del answers.results["checks"]
    options = Options(data, machine="none", script=answers, call_log=log, key=KEY)
    aws = Aws(Service(options), session)
    if run.full:
        aws.s3.create_bucket(Bucket=BUCKET)
        aws.iam.create_instance_profile(InstanceProfileName=PROFILE)
        aws.iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument="{}")
        aws.iam.put_role_policy(RoleName=ROLE, PolicyName="own", PolicyDocument=POLICY)
        aws.iam.add_role_to_instance_profile(InstanceProfileName=PROFILE, RoleName=ROLE)
    return aws


def _project(run: Run, folder: Path) -> Project:
    folder.mkdir()
    (folder / "amibuild.toml").write_text(RECIPE)
    project = load_project(folder / "amibuild.toml")
    if run.on_spot:
        project = changed(project, builder={"spot": True})
    if run.over_ssh:
        project = changed(project, builder={"communicator": "ssh"})
    if not run.full:
        return project
    return changed(
        project,
        aws={"bucket": BUCKET, "instance_profile": PROFILE, "kms_key": KMS_KEY},
        publish={"accounts": ["444455556666"]},
    )


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


def _is_bare(error: AmibuildError | None, call: Call) -> bool:
    """An error about this call that says nothing of what to do."""
    return isinstance(error, AwsError) and error.operation == call.name and error.hint is None


def problems(cell: Cell, seen: Outcome, plain: Outcome) -> list[str]:
    """What is wrong with how a cell went; `plain` is its run without the fault."""
    found = []
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
    if cell.kind in PASSING and (seen.done, type(seen.error)) != (plain.done, type(plain.error)):
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
        for cell in cells({run: seen.calls for run, seen in recorded.items()}):
            if all(word in str(cell) for word in sys.argv[1:]):
                tally.add(cell, lab.perform(cell.run, cell.faults), recorded[cell.run])
    for line in tally.wrong:
        sys.stderr.write(f"{line}\n")
    sys.stdout.write(f"{tally}, in {monotonic() - began:.0f} s, {process_time():.0f} s of a core\n")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
