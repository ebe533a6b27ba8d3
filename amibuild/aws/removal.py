"""How each kind of resource is found and removed. A scope's end and `reap` both come here."""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import assert_never

from amibuild import lock
from amibuild.aws.session import Cloud
from amibuild.errors import (
    AmibuildError,
    AwsError,
    Denied,
    InUse,
    Leftover,
    LeftoverError,
    NotFound,
)
from amibuild.journal import ResourceKind
from amibuild.names import BakeId, Tag
from amibuild.wait import Clock, Look, Observer, SystemClock, silent, until

# Terminating took 35 s in Packer's measured run and can take minutes; volumes follow it.
TERMINATION_S = 600
IN_USE_S = 300
ENDING = frozenset({"shutting-down", "terminated"})
# Over a second, at the pace of `until`.
UNSEEN_LOOKS = 10


class _Unseen:
    """When "not found" means "gone": one that was made a moment ago may not be visible yet, for
    `hidden_s` still; one that has been gone for an hour never is again."""

    def __init__(self, clock: Clock, hidden_s: float) -> None:
        self._clock = clock
        self._until = clock.monotonic() + hidden_s
        self._looks = 0

    def look(self) -> Look[bool]:
        self._looks += 1
        gone = self._looks >= UNSEEN_LOOKS and self._clock.monotonic() >= self._until
        return Look("not visible", gone or None)


class CloudRemover:
    def __init__(self, cloud: Cloud, clock: Clock | None = None) -> None:
        self._cloud = cloud
        self._clock = clock or SystemClock()

    def find(self, kind: ResourceKind, bake_id: BakeId, token: str, name: str) -> list[str]:
        tags = {Tag.BAKE_ID: str(bake_id), Tag.TOKEN: token}
        match kind:
            case ResourceKind.INSTANCE:
                return self._cloud.ec2.instances_tagged(tags)
            case ResourceKind.SECURITY_GROUP:
                return self._cloud.ec2.security_groups_tagged(tags)
            case ResourceKind.VOLUME:
                return self._cloud.ec2.volumes_tagged(tags)
            case ResourceKind.IMAGE:
                return self._cloud.images.tagged(tags)
            case ResourceKind.SNAPSHOT:
                return self._cloud.images.snapshots_tagged(tags)
            case ResourceKind.OBJECT:
                return [name] if self._is_stored(name) else []
            case ResourceKind.LOCK:
                found = self._cloud.ssm.parameters_below(name.rpartition("/")[0])
                return [name] if lock.is_of(found.get(name, ""), bake_id) else []
            case _:
                assert_never(kind)

    def begin(self, kind: ResourceKind, id_: str) -> None:
        if kind is ResourceKind.INSTANCE:
            self._delete(kind, id_)

    def remove(
        self,
        kind: ResourceKind,
        id_: str,
        token: str,
        observer: Observer = silent,
        hidden_s: float = 0.0,
    ) -> None:
        match kind:
            case ResourceKind.INSTANCE:
                self._remove_instance(id_, observer, hidden_s)
            case ResourceKind.IMAGE:
                self._remove_image(id_, token, observer, hidden_s)
            case _:
                self._once_unused(kind, id_, observer, hidden_s)

    def _delete(self, kind: ResourceKind, id_: str) -> None:
        match kind:
            case ResourceKind.INSTANCE:
                self._cloud.ec2.terminate_instance(id_)
            case ResourceKind.SECURITY_GROUP:
                self._cloud.ec2.delete_security_group(id_)
            case ResourceKind.VOLUME:
                self._cloud.ec2.delete_volume(id_)
            case ResourceKind.IMAGE:
                self._cloud.images.deregister(id_)
            case ResourceKind.SNAPSHOT:
                self._cloud.images.delete_snapshot(id_)
            case ResourceKind.OBJECT:
                self._delete_object(*_bucket_and_key(id_))
            case ResourceKind.LOCK:
                # Without a look: a generation that is no longer the highest is nobody's.
                self._cloud.ssm.overwrite_parameter(id_, lock.RELEASED)
            case _:
                assert_never(kind)

    def _is_stored(self, url: str) -> bool:
        """Whole, or in parts: a killed upload of a large file leaves these."""
        at, s3 = _bucket_and_key(url), self._cloud.s3
        return s3.exists(*at) or bool(s3.unfinished(*at))

    def _delete_object(self, bucket: str, key: str) -> None:
        s3 = self._cloud.s3
        s3.delete(bucket, key)
        with suppress(Denied):  # of a whole one there are none, and others `find` was to look for
            for upload in s3.unfinished(bucket, key):
                with suppress(NotFound):
                    s3.abort(bucket, key, upload)

    def _is_there(self, kind: ResourceKind, id_: str) -> bool:
        """By a read of its own, where the answer of its removal got lost."""
        try:
            match kind:
                case ResourceKind.INSTANCE:
                    return self._cloud.ec2.instance(id_).state != "terminated"
                case ResourceKind.SECURITY_GROUP:
                    return self._cloud.ec2.security_group_visible(id_)
                case ResourceKind.VOLUME:
                    return self._cloud.ec2.volume_state(id_) not in {"deleting", "deleted"}
                case ResourceKind.IMAGE:
                    return self._cloud.images.image(id_).state != "deregistered"
                case ResourceKind.SNAPSHOT:
                    return self._cloud.images.has_snapshot(id_)
                case ResourceKind.OBJECT:
                    return self._is_stored(id_)
                case ResourceKind.LOCK:
                    folder = id_.rpartition("/")[0]
                    held = self._cloud.ssm.parameters_below(folder).get(id_, lock.RELEASED)
                    return held != lock.RELEASED
                case _:
                    assert_never(kind)
        except NotFound:
            return False

    def command(self, kind: ResourceKind, id_: str) -> str:
        service = {ResourceKind.OBJECT: "s3", ResourceKind.LOCK: "ssm"}.get(kind, "ec2")
        region = self._cloud.cli(service)
        match kind:
            case ResourceKind.INSTANCE:
                return f"aws ec2 terminate-instances {region} --instance-ids {id_}"
            case ResourceKind.SECURITY_GROUP:
                return f"aws ec2 delete-security-group {region} --group-id {id_}"
            case ResourceKind.VOLUME:
                return f"aws ec2 delete-volume {region} --volume-id {id_}"
            case ResourceKind.IMAGE:
                return (
                    f"aws ec2 deregister-image {region} --image-id {id_}"
                    " --delete-associated-snapshots"
                )
            case ResourceKind.SNAPSHOT:
                return f"aws ec2 delete-snapshot {region} --snapshot-id {id_}"
            case ResourceKind.OBJECT:
                return f"aws s3 rm {region} {id_}"
            case ResourceKind.LOCK:
                value = shlex.quote(lock.RELEASED)
                return f"aws ssm put-parameter {region} --overwrite --name {id_} --value {value}"
            case _:
                assert_never(kind)

    def _remove_instance(self, id_: str, observer: Observer, hidden_s: float) -> None:
        unseen = _Unseen(self._clock, hidden_s)

        def look() -> Look[bool]:
            try:
                state = self._cloud.ec2.instance(id_).state
                if state not in ENDING:
                    self._terminate(id_)
            except NotFound:
                return unseen.look()
            return Look(state, True if state == "terminated" else None)

        until(
            look,
            what=f"{id_} to terminate",
            timeout_s=TERMINATION_S,
            clock=self._clock,
            observer=observer,
        )

    def _terminate(self, id_: str) -> None:
        try:
            self._delete(ResourceKind.INSTANCE, id_)
        except AwsError as error:
            if error.answered or self._cloud.ec2.instance(id_).state not in ENDING:
                raise

    def _remove_image(self, id_: str, token: str, observer: Observer, hidden_s: float) -> None:
        """The image, then its snapshots: those it names, and those of the call that made it.

        A pending image may not name its snapshot yet, and one that is gone names none.
        Raises: LeftoverError with the snapshots that stay, when the image itself is gone.
        """
        snapshots = self._made_by(token)
        with suppress(NotFound):
            snapshots |= set(self._cloud.images.image(id_).snapshots)
        self._once_unused(ResourceKind.IMAGE, id_, observer, hidden_s)
        left = []
        for snapshot in sorted(snapshots or self._made_by(token)):
            try:
                self._once_unused(ResourceKind.SNAPSHOT, snapshot, observer)
            except AmibuildError as error:
                left.append(self._left(snapshot, error.message))
        if left:
            raise LeftoverError(left)

    def _made_by(self, token: str) -> set[str]:
        return set(self._cloud.images.snapshots_tagged({Tag.TOKEN: token})) if token else set()

    def _left(self, snapshot: str, reason: str) -> Leftover:
        command = self.command(ResourceKind.SNAPSHOT, snapshot)
        return Leftover(ResourceKind.SNAPSHOT, snapshot, self._cloud.region, reason, command)

    def _once_unused(
        self, kind: ResourceKind, id_: str, observer: Observer, hidden_s: float = 0.0
    ) -> None:
        """EC2 goes on seeing a user of it for some seconds after that user is gone, and may not
        see yet what was made a moment ago: "not found" once does not mean that it is gone."""
        unseen = _Unseen(self._clock, hidden_s)

        def look() -> Look[bool]:
            try:
                self._delete(kind, id_)
            except InUse as error:
                return Look(f"in use ({error.code})")
            except NotFound:
                return unseen.look()
            except AwsError as error:
                if error.answered or self._is_there(kind, id_):
                    raise
            return Look("gone", True)

        until(
            look,
            what=f"{id_} to be free",
            timeout_s=IN_USE_S,
            clock=self._clock,
            observer=observer,
        )


def _bucket_and_key(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key
