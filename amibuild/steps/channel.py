"""Moves a channel: one mover at a time, and not done before the new value can be read back.

PutParameter answers before the service has looked whether there is such an image, and drops what
is wrong without a word (Systems Manager user guide, native parameter support for AMI ids).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from amibuild.aws.session import Cloud
from amibuild.aws.ssm import ParameterVersion
from amibuild.channel_lines import Moved, Moving
from amibuild.channels import Channel, Entry, Note, read_channel, read_history
from amibuild.errors import AwsError, ChannelBusy, Duplicate, Locked, WaitTimeout
from amibuild.journal import Journal
from amibuild.names import BakeId, Tag
from amibuild.scope import Scope
from amibuild.steps.lock import HeldLock, take, wait_until_free
from amibuild.wait import Clock, Look, until

# Seconds as a rule; nobody promises how long the service looks for the image.
READ_BACK_S = 60
# Longer than a move takes. Without a network a call is held for longer, so who has a lock makes
# sure of it before each write: `HeldLock.renew`.
LEASE = timedelta(minutes=10)


@contextmanager
def locked(
    cloud: Cloud,
    scope: Scope,
    journal: Journal,
    flow: BakeId,
    channel: Channel,
    state_dir: Path,
    clock: Clock | None,
    *,
    timeout_s: float = 0.0,
) -> Iterator[HeldLock]:
    """While it lasts, no other amibuild moves the channel or removes old images of its recipe; the
    end of the scope releases it.

    Raises: ChannelBusy when another still does after `timeout_s`; Overtaken when another look is
    needed to tell.
    """
    lock = f"{channel.image}/{channel.name}"
    try:
        free, _ = wait_until_free(
            cloud, lock, state_dir, timeout_s=timeout_s, clock=clock, observer=journal.show
        )
    except Locked as busy:
        raise ChannelBusy(
            f"{busy.who} ({busy.bake_id}) has {channel.name} of {channel.image} since "
            f"{busy.since:%Y-%m-%dT%H:%M:%SZ}, to move it or to prune; nothing was changed here",
            hint="look at `amibuild channels` once that has ended; one that died is over at "
            f"{busy.until:%H:%M:%SZ}, or with `amibuild reap` where it ran",
        ) from busy
    purpose = f"lock-{channel.name}"
    with take(
        cloud, scope, journal, flow, free, lease=LEASE, purpose=purpose, clock=clock
    ) as held_lock:
        yield held_lock


@contextmanager
def held(
    cloud: Cloud,
    scope: Scope,
    journal: Journal,
    move: BakeId,
    channel: Channel,
    state_dir: Path,
    clock: Clock | None,
) -> Iterator[HeldLock]:
    """The lock of a channel that is as it was shown.

    Raises: ChannelBusy when another has it, or has moved it since `channel` was read; Overtaken.
    """
    with locked(cloud, scope, journal, move, channel, state_dir, clock) as held_lock:
        now = read_channel(cloud, channel)
        if (now.version, now.image_id) != (channel.version, channel.image_id):
            raise ChannelBusy(
                f"{channel.name} of {channel.image} was moved to {now.image_id} meanwhile; nothing "
                "was changed here",
                hint="look at `amibuild channels history`, and call it again if it is still wanted",
            )
        yield held_lock


def set_channel(
    cloud: Cloud,
    journal: Journal,
    channel: Channel,
    image_id: str,
    note: Note,
    clock: Clock | None = None,
) -> ParameterVersion:
    """The channel's new version, once it is there. Only for who holds its lock.

    Raises: ChannelBusy when somebody without the lock wrote at the same time; WaitTimeout when it
    never appears, and the channel then has its old value.
    """
    journal.write(
        Moving(
            verb=note.verb,
            channel=channel.name,
            parameter=channel.parameter,
            region=channel.region,
            image=image_id,
            previous=channel.image_id,
            by=note.by,
            reason=note.reason,
        )
    )
    lost: AwsError | None = None
    try:
        _put(cloud, channel, image_id, note)
    except AwsError as error:
        # Carried out all the same, or a second try found what the first has made.
        if error.answered and not isinstance(error, Duplicate):
            raise
        lost = error
    try:
        there = _await(cloud, journal, channel, image_id, note, clock)
    except WaitTimeout as timeout:
        raise (lost or timeout) from None
    journal.write(
        Moved(
            channel=channel.name,
            parameter=channel.parameter,
            region=channel.region,
            image=image_id,
            previous=channel.image_id,
            version=there.version,
        )
    )
    return there


def _put(cloud: Cloud, channel: Channel, image_id: str, note: Note) -> None:
    description = note.model_dump_json()
    if channel.current is not None:
        cloud.ssm.overwrite_image_parameter(channel.parameter, image_id, description)
        return
    tags = {Tag.IMAGE: channel.image, Tag.CHANNEL: channel.name}
    cloud.ssm.create_image_parameter(channel.parameter, image_id, description, tags)


def _await(
    cloud: Cloud,
    journal: Journal,
    channel: Channel,
    image_id: str,
    note: Note,
    clock: Clock | None,
) -> ParameterVersion:
    def look() -> Look[ParameterVersion]:
        seen = read_channel(cloud, channel).current
        if seen is None or seen.version <= channel.version:
            return Look("not there yet")
        if (seen.version, seen.value) == (channel.version + 1, image_id):
            return Look("there", seen)
        # A call that was tried again may have made two versions of ours.
        since = [e for e in read_history(cloud, channel.parameter) if e.version > channel.version]
        others = [entry for entry in since if not _is_ours(entry, note)]
        if len(others) == len(since):
            return Look(f"set to {seen.value} by somebody else")
        if others:
            raise _meddled(channel, others[-1], seen.value)
        return Look("there", seen)

    return until(
        look,
        what=f"{channel.parameter} to have {image_id}",
        timeout_s=READ_BACK_S,
        clock=clock,
        observer=journal.show,
        hint=f"only an available image of {channel.region} is saved: is {image_id} one?",
    )


def _meddled(channel: Channel, other: Entry, now: str) -> ChannelBusy:
    return ChannelBusy(
        f"{channel.name} of {channel.image} was set to {other.image_id} by "
        f"{other.by or 'somebody'} at the same time, as version {other.version}; it now has {now}",
        hint="look at `amibuild channels history`, and call it again if it is still wanted",
    )


def _is_ours(entry: Entry, note: Note) -> bool:
    return entry.note is not None and entry.note.move == note.move
