"""The lock of an image on the local endpoint's Parameter Store: one bake at a time, whoever dies.

tests/unit/test_lock.py has what decides; here are the calls, in order and against each other.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from multiprocessing import connection
from pathlib import Path

import pytest

from amibuild import lock
from amibuild.aws.removal import CloudRemover
from amibuild.aws.session import Cloud
from amibuild.aws.ssm import Ssm
from amibuild.errors import AwsError, CommandFailed, Interrupted, Locked, ResourceFailed
from amibuild.journal import Journal, Noted, Shown, StepStarted, Subscriber, journal_path, read
from amibuild.lock import CLOCKS_DIFFER, RELEASED, Holder, here, parameter
from amibuild.names import BakeId, EndpointAccess, new_bake_id
from amibuild.project import Project
from amibuild.reap import reap
from amibuild.scope import OnError, Scope
from amibuild.steps.lock import (
    EARLIER_KEPT,
    HeldLock,
    Overtaken,
    look_at,
    take,
    utc_now,
    wait_until_free,
)
from amibuild.wait import Waiting
from tests.contract import builder
from tests.contract.builder import STAGES, Answers, new_project
from tests.contract.conftest import REGION, Aws, Start
from tests.unit.fakes import FakeClock

IMAGE = "game-host"
LEASE = timedelta(hours=3)


def cloud_of(aws: Aws) -> Cloud:
    """Clients of one's own, as each process has."""
    key = aws.service.options.key
    return Cloud(region=aws.region, access=EndpointAccess(aws.service.url, key.id, key.secret))


def holder(aws: Aws) -> Holder:
    return look_at(aws.cloud, IMAGE).holder


def held_elsewhere(aws: Aws, expires: datetime, generation: int = 1) -> Holder:
    """A lock that a bake on another machine has."""
    theirs = Holder(
        bake_id="20261122-101500-a1b2c3",
        host="elsewhere",
        user="them",
        place="another boot",
        pid=1,
        since=expires - LEASE,
        expires=expires,
    )
    aws.cloud.ssm.overwrite_parameter(parameter(IMAGE, generation), theirs.model_dump_json())
    return theirs


@dataclass
class Clock:
    """A wall clock that is moved by hand."""

    at: datetime = field(default_factory=utc_now)

    def __call__(self) -> datetime:
        return self.at


@contextmanager
def held(
    cloud: Cloud, folder: Path, free: lock.Standing, now: Clock | None = None
) -> Iterator[tuple[BakeId, HeldLock]]:
    bake_id = new_bake_id()
    with (
        Journal(journal_path(folder, bake_id)) as journal,
        Scope(journal, CloudRemover(cloud), bake_id=bake_id, region=cloud.region) as scope,
        take(cloud, scope, journal, bake_id, free, lease=LEASE, now=now or utc_now) as mine,
    ):
        yield bake_id, mine


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project")


def test_the_lock_says_who_has_it_until_its_scope_ends(aws: Aws, tmp_path: Path) -> None:
    free, waited = wait_until_free(aws.cloud, IMAGE, tmp_path, timeout_s=0)
    assert not waited
    with held(aws.cloud, tmp_path, free) as (bake_id, _):
        now, me = holder(aws), here()
        assert (now.bake_id, now.host, now.pid) == (bake_id, me.host, me.pid)
        assert now.expires - now.since == LEASE
        with pytest.raises(Locked) as refused:
            wait_until_free(aws.cloud, IMAGE, tmp_path, timeout_s=0)
        assert refused.value.bake_id == bake_id
        assert f"{me.user}@{me.host}" in refused.value.message
        assert refused.value.hint is not None and "--lock-timeout" in refused.value.hint
        other, _ = wait_until_free(aws.cloud, "other", tmp_path, timeout_s=0)
        assert other.generation == 0
    assert holder(aws).released


def test_generations_go_up_and_a_page_of_them_is_kept(aws: Aws, tmp_path: Path) -> None:
    most = 0
    for number in range(1, 2 * EARLIER_KEPT + 4):
        free, _ = wait_until_free(aws.cloud, IMAGE, tmp_path, timeout_s=0)
        with held(aws.cloud, tmp_path, free):
            seen = look_at(aws.cloud, IMAGE)
            assert seen.generation == number
        most = max(most, len(seen.generations))
    assert most == EARLIER_KEPT


def test_who_slept_since_its_look_gets_no_lock(aws: Aws, tmp_path: Path) -> None:
    """Its generation was there and has gone again, so that the call that makes it succeeds."""
    long_ago, _ = wait_until_free(aws.cloud, IMAGE, tmp_path, timeout_s=0)
    for _ in range(EARLIER_KEPT + 1):
        free, _ = wait_until_free(aws.cloud, IMAGE, tmp_path, timeout_s=0)
        with held(aws.cloud, tmp_path, free) as (bake_id, _):
            last = look_at(aws.cloud, IMAGE)
            if 1 in last.generations:
                continue
            with pytest.raises(Overtaken), held(aws.cloud, tmp_path, long_ago):
                pass
            assert holder(aws).bake_id == bake_id
    assert 1 not in last.generations, "it never came to that"


@pytest.mark.parametrize("reads", [1, 3])
def test_a_lock_that_is_not_visible_yet_is_waited_for(
    start: Start, tmp_path: Path, reads: int
) -> None:
    aws = start(f"visible:parameter={reads}")
    free, _ = wait_until_free(aws.cloud, IMAGE, tmp_path, timeout_s=0)
    with held(aws.cloud, tmp_path, free) as (bake_id, _):
        assert holder(aws).bake_id == bake_id


def test_who_was_quicker_is_visible_when_one_is_told(start: Start, tmp_path: Path) -> None:
    """Else one would look, see nothing and try again, as fast as the calls go."""
    aws = start("visible:parameter=3")
    free, _ = wait_until_free(aws.cloud, IMAGE, tmp_path, timeout_s=0)
    theirs = held_elsewhere(aws, utc_now() + LEASE)
    with pytest.raises(Overtaken), held(aws.cloud, tmp_path, free):
        pass
    assert holder(aws) == theirs


def test_a_lost_answer_loses_no_lock(start: Start, project: Project) -> None:
    """botocore asks again, and is told that its own lock is there: that one is released."""
    aws = start("PutParameter:1=InternalServerError:after", script=Answers())
    assert builder.run(project, aws.cloud).verified
    seen = look_at(aws.cloud, IMAGE)
    assert seen.generation == 2
    assert all(value == RELEASED for value in seen.generations.values())


def test_of_many_who_see_an_expired_lock_one_gets_it(aws: Aws, tmp_path: Path) -> None:
    """Again and again; each has clients of its own, and all are let off at once."""
    crowd, rounds = 6, 15
    clouds = [cloud_of(aws) for _ in range(crowd)]
    together = threading.Barrier(crowd, timeout=60)
    inside: list[int] = []
    most: list[int] = []

    def compete(number: int) -> bool:
        cloud, folder = clouds[number], tmp_path / str(number)
        together.wait()
        try:
            free, _ = wait_until_free(cloud, IMAGE, folder, timeout_s=0)
            with held(cloud, folder, free):
                inside.append(number)
                most.append(len(inside))
                decided.wait(60)
                inside.remove(number)
                return True
        except (Locked, Overtaken):
            return False
        finally:
            outside.release()

    winners = 0
    with ThreadPoolExecutor(crowd) as pool:
        for _ in range(rounds):
            expired = utc_now() - CLOCKS_DIFFER - timedelta(seconds=1)
            held_elsewhere(aws, expired, look_at(aws.cloud, IMAGE).generation + 1)
            decided, outside = threading.Event(), threading.Semaphore(0)
            running = [pool.submit(compete, number) for number in range(crowd)]
            for _ in range(crowd - 1):
                assert outside.acquire(timeout=60)
            decided.set()
            won = [one.result(60) for one in running]
            winners += sum(won)
            assert holder(aws).released
    assert set(most) == {1}
    assert winners == rounds


def test_a_lock_elsewhere_ends_by_its_date_and_the_clocks_margin(aws: Aws, tmp_path: Path) -> None:
    now = Clock()
    theirs = held_elsewhere(aws, now.at + LEASE)

    def looks_free() -> bool:
        try:
            wait_until_free(aws.cloud, IMAGE, tmp_path, timeout_s=0, now=now)
        except Locked as refused:
            assert (refused.bake_id, refused.who) == (theirs.bake_id, "them@elsewhere")
            assert refused.until == theirs.expires + CLOCKS_DIFFER
            return False
        return True

    assert not looks_free()
    now.at = theirs.expires + CLOCKS_DIFFER
    assert not looks_free()
    now.at += timedelta(seconds=1)
    assert looks_free()


def test_a_lock_is_renewed_once_a_third_of_its_time_is_over(aws: Aws, tmp_path: Path) -> None:
    now = Clock()
    began = now.at
    free, _ = wait_until_free(aws.cloud, IMAGE, tmp_path, timeout_s=0)
    with held(aws.cloud, tmp_path, free, now) as (bake_id, mine):
        now.at = began + LEASE / 3 - timedelta(seconds=1)
        mine.renew()
        assert holder(aws).expires == began + LEASE
        now.at += timedelta(seconds=1)
        mine.renew()
        assert holder(aws).expires == now.at + LEASE
        assert (holder(aws).bake_id, holder(aws).since) == (bake_id, began)


def test_a_lock_whose_time_is_over_is_lost_and_not_renewed(aws: Aws, tmp_path: Path) -> None:
    now = Clock()
    free, _ = wait_until_free(aws.cloud, IMAGE, tmp_path, timeout_s=0)
    with (
        pytest.raises(ResourceFailed, match="is lost"),
        held(aws.cloud, tmp_path, free, now) as (_, mine),
    ):
        now.at += LEASE
        before = holder(aws)
        try:
            mine.renew()
        finally:
            assert holder(aws) == before


def test_a_renewal_that_fails_is_tried_again(start: Start, tmp_path: Path) -> None:
    aws = start("PutParameter:2=ValidationException")
    now = Clock()
    free, _ = wait_until_free(aws.cloud, IMAGE, tmp_path, timeout_s=0)
    with held(aws.cloud, tmp_path, free, now) as (_, mine):
        now.at += LEASE / 2
        mine.renew()
        assert holder(aws).expires < now.at + LEASE
        mine.renew()
        assert holder(aws).expires == now.at + LEASE


class HeldUp(Ssm):
    """A call takes its time, and then fails."""

    def __init__(self, now: Clock, takes: timedelta) -> None:
        self.now = now
        self.takes = takes

    def overwrite_parameter(self, name: str, value: str) -> None:
        self.now.at += self.takes
        raise AwsError(operation="PutParameter", code="NoConnection", message="away", region=REGION)


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_a_lock_whose_time_went_by_in_a_renewal_that_failed_is_lost(share: float) -> None:
    now = Clock()
    mine = lock.holder(new_bake_id(), here(), now.at, LEASE)
    cloud = Cloud(region=REGION, access=EndpointAccess("http://127.0.0.1:1", "x", "x"))
    cloud.ssm = HeldUp(now, LEASE * share)
    ours = HeldLock(cloud, parameter(IMAGE, 1), mine, LEASE, now)
    now.at += LEASE / 2
    if share < 0.5:
        ours.renew()
        assert now.at < mine.expires, "there is time for another try"
        return
    with pytest.raises(ResourceFailed, match="is lost"):
        ours.renew()


def test_where_of_two_calls_at_once_none_came_through_it_is_looked_at_again(
    start: Start, tmp_path: Path
) -> None:
    aws = start("PutParameter:1=TooManyUpdates")
    free, _ = wait_until_free(aws.cloud, IMAGE, tmp_path, timeout_s=0)
    bake_id, clock = new_bake_id(), FakeClock()
    with (
        Journal(journal_path(tmp_path, bake_id)) as journal,
        Scope(journal, CloudRemover(aws.cloud), bake_id=bake_id, region=REGION) as scope,
        pytest.raises(Overtaken),
        take(aws.cloud, scope, journal, bake_id, free, lease=LEASE, clock=clock),
    ):
        pass
    assert look_at(aws.cloud, IMAGE).generation == 0
    free, _ = wait_until_free(aws.cloud, IMAGE, tmp_path, timeout_s=0)
    with held(aws.cloud, tmp_path, free) as (bake_id, _):
        assert holder(aws).bake_id == bake_id


def test_a_lock_is_renewed_while_a_stage_runs_and_never_once_it_is_released(
    aws: Aws, tmp_path: Path
) -> None:
    """Each look of a wait is heard, also that which sees the lock go."""
    now = Clock()
    bake_id = new_bake_id()
    free, _ = wait_until_free(aws.cloud, IMAGE, tmp_path, timeout_s=0)
    look = Waiting("os", "running", 1, 2)
    with (
        Journal(journal_path(tmp_path, bake_id), (passing(now, LEASE / 2),)) as journal,
        Scope(journal, CloudRemover(aws.cloud), bake_id=bake_id, region=REGION) as scope,
        take(aws.cloud, scope, journal, bake_id, free, lease=LEASE, now=now),
    ):
        journal.show(look)
        assert holder(aws).expires == now.at + LEASE
        journal.show(look)
        assert holder(aws).expires == now.at + LEASE
    assert holder(aws).released


def passing(now: Clock, each: timedelta) -> Subscriber:
    """At each look so much time has passed, but for those with which the lock is taken."""

    def hear(shown: Shown) -> None:
        if isinstance(shown, Waiting) and (shown.what == "os" or "to be free" in shown.what):
            now.at += each

    return hear


def test_a_lock_that_is_lost_while_a_stage_runs_is_told_by_the_next(
    aws: Aws, tmp_path: Path
) -> None:
    now = Clock()
    free, _ = wait_until_free(aws.cloud, IMAGE, tmp_path, timeout_s=0)
    with held(aws.cloud, tmp_path, free, now) as (_, mine):
        now.at += LEASE
        before = holder(aws)
        mine.hear(Waiting("os", "running", 1, 2))
        assert holder(aws) == before
        with pytest.raises(ResourceFailed, match="is lost"):
            mine.renew()


def test_the_journal_of_who_was_overtaken_says_so(aws: Aws, tmp_path: Path) -> None:
    free, _ = wait_until_free(aws.cloud, IMAGE, tmp_path, timeout_s=0)
    held_elsewhere(aws, utc_now() + LEASE)
    with pytest.raises(Overtaken), held(aws.cloud, tmp_path, free):
        pass
    (journal,) = (tmp_path / "journals").iterdir()
    notes = [event.text for event in read(journal) if isinstance(event, Noted)]
    assert notes == [f"somebody else had the lock of {IMAGE} first: this one begins anew"]


def test_a_bake_has_its_lock_for_an_hour_however_long_it_may_take(
    start: Start, project: Project
) -> None:
    """One that is killed elsewhere holds it for no longer."""
    aws = start(script=Answers())
    seen: list[Holder] = []

    def look(shown: Shown) -> None:
        if isinstance(shown, StepStarted) and shown.step == STAGES[0]:
            seen.append(holder(aws))

    builder.run(project, aws.cloud, look)
    assert project.lease > timedelta(hours=4)
    assert seen[0].expires - seen[0].since == timedelta(hours=1)


def test_a_bake_looks_after_its_lock_before_each_stage(
    start: Start, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws = start(script=Answers())
    monkeypatch.setattr("amibuild.bake.LEASE", timedelta(seconds=0.5))

    def outlast(shown: Shown) -> None:
        if isinstance(shown, StepStarted) and shown.step == STAGES[0]:
            end = holder(aws).expires
            aws.until(lambda: "over" if utc_now() >= end else "ours", "over")

    with pytest.raises(ResourceFailed, match="is lost"):
        builder.run(project, aws.cloud, outlast)
    assert holder(aws).released
    assert not aws.ec2.describe_instances()["Reservations"]


def test_of_two_bakes_at_once_one_is_told_of_the_other(start: Start, tmp_path: Path) -> None:
    aws = start(script=Answers())
    url, gate = aws.service.url, tmp_path / "gate"
    bakes = {name: builder.started(url, tmp_path / name, gate=gate) for name in ("one", "two")}
    connection.wait([process.sentinel for process in bakes.values()], timeout=60)
    (loser,) = (name for name, process in bakes.items() if process.exitcode is not None)
    gate.touch()
    for process in bakes.values():
        process.join(60)
    said = {name: (tmp_path / name / "said").read_text() for name in bakes}
    (winner,) = bakes.keys() - {loser}
    assert (bakes[loser].exitcode, bakes[winner].exitcode) == (1, 0), said
    (journal,) = (tmp_path / winner / ".amibuild" / "journals").iterdir()
    assert f"{IMAGE} is being baked: bake {journal.stem} of " in said[loser]
    (image,) = aws.ec2.describe_images(Owners=["self"])["Images"]
    assert said[winner] == image["ImageId"]


def test_who_waits_uses_the_image_that_the_other_made(start: Start, tmp_path: Path) -> None:
    aws = start(script=Answers())
    gate = tmp_path / "gate"
    first = builder.started(aws.service.url, tmp_path / "first", gate=gate)
    aws.until(lambda: "held" if holder(aws).bake_id else "free", "held")
    waits: list[Waiting] = []

    def hear(shown: Shown) -> None:
        if isinstance(shown, Waiting):
            waits.append(shown)
            gate.touch()

    second = new_project(tmp_path / "second")
    result = builder.run(second, aws.cloud, hear, if_changed=True, lock_timeout_s=60)
    first.join(60)
    assert (tmp_path / "first" / "said").read_text() == result.image_id
    assert result.reused
    assert {wait.what for wait in waits} == {f"the lock of {IMAGE}"}
    assert any(here().host in wait.state for wait in waits)
    assert not (second.state_dir / "journals").exists(), "it made nothing"


def test_who_waits_without_if_changed_bakes_after_the_other(start: Start, tmp_path: Path) -> None:
    aws = start(script=Answers())
    names = ("one", "two")
    bakes = [builder.started(aws.service.url, tmp_path / name, lock_timeout_s=60) for name in names]
    for process in bakes:
        process.join(90)
    said = [(tmp_path / name / "said").read_text() for name in names]
    assert [process.exitcode for process in bakes] == [0, 0], said
    assert len(set(said)) == 2


def test_waiting_ends_and_says_for_whom(start: Start, project: Project) -> None:
    aws = start(script=Answers())
    theirs = held_elsewhere(aws, utc_now() + LEASE)
    with pytest.raises(Locked, match=r"^after \d+ s game-host is still") as refused:
        builder.run(project, aws.cloud, lock_timeout_s=0.5)
    assert theirs.bake_id in refused.value.message
    assert not (project.state_dir / "journals").exists()


@pytest.mark.parametrize(
    ("moment", "same_folder"), [("created:1", True), ("os", False), ("removed:1", False)]
)
def test_after_kill_9_the_next_bake_here_goes_on_at_once(
    start: Start, tmp_path: Path, moment: str, same_folder: bool
) -> None:
    aws = start(script=Answers())
    folder = tmp_path / "killed"
    assert builder.killed_at(moment, aws.service.url, folder) == -signal.SIGKILL
    dead = holder(aws)
    assert dead.bake_id and not dead.released
    noted: list[str] = []

    def hear(shown: Shown) -> None:
        if isinstance(shown, Noted):
            noted.append(shown.text)

    project = new_project(folder if same_folder else tmp_path / "next")
    assert builder.run(project, aws.cloud, hear).verified
    assert any(dead.bake_id in text for text in noted)
    assert holder(aws).released


def test_what_was_killed_elsewhere_holds_its_lock_until_its_date(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers())
    held_elsewhere(aws, utc_now() + LEASE)
    with pytest.raises(Locked, match="them@elsewhere"):
        builder.run(project, aws.cloud)
    held_elsewhere(aws, utc_now() - CLOCKS_DIFFER - timedelta(seconds=1))
    assert builder.run(project, aws.cloud).verified


def test_reap_releases_the_lock_of_a_dead_bake(start: Start, tmp_path: Path) -> None:
    aws = start(script=Answers())
    folder = tmp_path / "killed"
    builder.killed_at("os", aws.service.url, folder)
    theirs = holder(aws).model_copy(update={"host": "as seen from elsewhere"})
    aws.cloud.ssm.overwrite_parameter(parameter(IMAGE, 1), theirs.model_dump_json())
    with pytest.raises(Locked):
        wait_until_free(aws.cloud, IMAGE, folder, timeout_s=0)
    report = reap(aws.cloud, folder / ".amibuild", target="local", dry_run=False)
    assert ("lock", parameter(IMAGE, 1)) in {(one.kind, one.id) for one in report.removed}
    assert holder(aws).released


def test_reap_leaves_the_lock_of_whoever_came_after_alone(start: Start, tmp_path: Path) -> None:
    aws = start(script=Answers())
    folder = tmp_path / "killed"
    builder.killed_at("os", aws.service.url, folder)
    free, _ = wait_until_free(aws.cloud, IMAGE, folder, timeout_s=0)
    with held(aws.cloud, tmp_path / "next", free) as (bake_id, _):
        reap(aws.cloud, folder / ".amibuild", target="local", dry_run=False)
        assert (holder(aws).bake_id, holder(aws).released) == (bake_id, False)


@pytest.mark.parametrize("on_error", list(OnError))
def test_a_failed_bake_has_no_lock(start: Start, project: Project, on_error: OnError) -> None:
    """Also when what it made is kept for a look."""
    aws = start(script=Answers(exit_codes={"os": 3}))
    with pytest.raises(CommandFailed):
        builder.run(project, aws.cloud, on_error=on_error)
    assert look_at(aws.cloud, IMAGE).generation == 1
    assert holder(aws).released


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bake_has_no_lock(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    aws = start(script=Answers())
    process = builder.started(aws.service.url, tmp_path / "project", gate=tmp_path / "gate")
    aws.until(lambda: "held" if holder(aws).bake_id else "free", "held")
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == Interrupted.exit_code
    assert holder(aws).released


def test_the_lock_is_there_from_before_the_first_stage_to_the_last(
    start: Start, project: Project
) -> None:
    aws = start(script=Answers())
    seen: list[Holder] = []

    def look(shown: Shown) -> None:
        if isinstance(shown, StepStarted) and shown.step in {STAGES[0], STAGES[-1]}:
            seen.append(holder(aws))

    builder.run(project, aws.cloud, look)
    (journal,) = (project.state_dir / "journals").iterdir()
    assert [(one.bake_id, one.released) for one in seen] == [(journal.stem, False)] * 2


def test_an_image_that_is_used_again_takes_no_lock(
    start: Start, project: Project, tmp_path: Path
) -> None:
    log = tmp_path / "calls"
    aws = start(script=Answers(), call_log=log)
    first = builder.run(project, aws.cloud)
    held_elsewhere(aws, utc_now() + LEASE, generation=2)
    before = len(log.read_text().splitlines())
    again = builder.run(project, aws.cloud, if_changed=True)
    assert (again.image_id, again.reused) == (first.image_id, True)
    calls = "\n".join(log.read_text().splitlines()[before:])
    assert "PutParameter" not in calls and "ByPath" not in calls


def test_the_lock_costs_four_calls(start: Start, project: Project, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    builder.run(project, start(script=Answers(), call_log=log).cloud)
    lines = log.read_text().splitlines()
    ours = [line for line in lines if "PutParameter" in line or "ParametersByPath" in line]
    assert len(ours) == 4
    assert not [line for line in lines if "DeleteParameters" in line]
