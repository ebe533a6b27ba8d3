"""The lock of an image: who bakes it and until when, as parameters say it. Pure but for `here`.

Each taking is a parameter of its own, `/amibuild/<image>/lock/<generation>`, made by a call that
fails when it is there already. The highest generation counts and is never deleted, so that no
generation comes back: a process that was asleep since its look can't be fooled into a second lock.
A lock ends when its owner says so, when its owner is known to be dead, or by its date.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from amibuild import proc
from amibuild.errors import ResourceFailed
from amibuild.journal import is_live, journal_path
from amibuild.names import BakeId

# AWS refuses a call that is signed more than 5 minutes off its own time (IAM user guide, Signature
# Version 4), so the clocks of two bakes differ by twice that at most.
CLOCKS_DIFFER = timedelta(minutes=10)
# Whoever had it, it is free: the last word of an owner, or of `reap` for a dead one.
RELEASED = '{"released":true}'
_GENERATION = re.compile(r"\d{10}")
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Owner:
    """A process and where it runs. `place` is empty where process ids can't be told apart."""

    host: str
    user: str
    place: str
    pid: int
    began: int | None


def here() -> Owner:
    """This process."""
    pid = os.getpid()
    return Owner(socket.gethostname(), proc.user(), proc.place(), pid, proc.began(pid))


class Holder(BaseModel):
    """The value of a lock's parameter. A later version may say more, and a released one says less.

    The pattern keeps a value from naming a file elsewhere.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    bake_id: str = Field(default="", pattern=r"^[\w-]*$")
    host: str = ""
    user: str = ""
    place: str = ""
    pid: int = 0
    began: int | None = None
    since: AwareDatetime = _LONG_AGO
    expires: AwareDatetime = _LONG_AGO
    released: bool = False

    @property
    def free_at(self) -> datetime:
        """When others may take it, whatever became of its owner."""
        return self.expires + CLOCKS_DIFFER

    def is_over(self, now: datetime) -> bool:
        return self.released or now > self.free_at

    def is_dead(self, me: Owner, state_dir: Path) -> bool:
        """Whether its bake is known to have ended without a word; False where nobody can tell.

        By its journal, on which a living bake has a lock of the kernel's, where that is one of
        ours; this also sees what ended with the machine. Else by its process.
        """
        if self.host != me.host:
            return False
        journal = journal_path(state_dir, self.bake_id)
        if journal.is_file() and os.access(journal, os.R_OK):
            return not is_live(journal)
        # Other users' processes may be hidden (proc(5), hidepid), which looks like no process.
        known = bool(me.place) and (self.place, self.user) == (me.place, me.user)
        return known and proc.has_ended(self.pid, self.began)


def holder(bake_id: BakeId, owner: Owner, since: datetime, lease: timedelta) -> Holder:
    return Holder(
        bake_id=bake_id,
        host=owner.host,
        user=owner.user,
        place=owner.place,
        pid=owner.pid,
        began=owner.began,
        since=since,
        expires=since + lease,
    )


def folder(image: str) -> str:
    return f"/amibuild/{image}/lock"


def parameter(image: str, generation: int) -> str:
    return f"{folder(image)}/{generation:010d}"


@dataclass(frozen=True)
class Standing:
    """The generations of an image's lock that are there, by name; `generation` is the highest."""

    image: str
    generations: Mapping[int, str]

    @property
    def generation(self) -> int:
        return max(self.generations, default=0)

    @property
    def next(self) -> str:
        return parameter(self.image, self.generation + 1)

    @property
    def holder(self) -> Holder:
        """Of the highest generation; a released one where there is none yet.

        Raises: ResourceFailed.
        """
        if not self.generations:
            return Holder(released=True)
        try:
            return Holder.model_validate_json(self.generations[self.generation])
        except ValidationError as error:
            name = parameter(self.image, self.generation)
            raise ResourceFailed(
                what=f"the lock {name}",
                state="unreadable",
                reason=f"its value is not amibuild's ({error.error_count()} mistakes)",
                hint=f"if no bake of {self.image} runs, give it the value {RELEASED}",
            ) from error

    def below(self, generation: int) -> list[str]:
        """The names of what nobody needs any longer once that generation is somebody's."""
        return [parameter(self.image, n) for n in sorted(self.generations) if n < generation]


def standing(image: str, found: Mapping[str, str]) -> Standing:
    """From the parameters below the lock's folder, where a channel named `lock` has its own."""
    start = folder(image) + "/"
    numbered = {name.removeprefix(start): value for name, value in found.items()}
    return Standing(
        image, {int(n): value for n, value in numbered.items() if _GENERATION.fullmatch(n)}
    )


def is_of(value: str, bake_id: BakeId) -> bool:
    """Whether a lock's value says that this bake holds it."""
    try:
        found = Holder.model_validate_json(value)
    except ValidationError:
        return False
    return found.bake_id == bake_id and not found.released
