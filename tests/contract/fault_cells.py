"""The cells of the fault matrix: every call that was recorded, with each fault it can have.

The calls are not written down here: what a bake calls is recorded (fault_matrix.py), and a cell is
made of each call, at its first and at its last occurrence, with each kind of fault that its sort
can have (POSSIBLE). A call of a sort that is not known has no place here, and is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Sort(StrEnum):
    READ = "read"
    CREATE = "create"
    CHANGE = "change"
    REMOVE = "remove"


class Kind(StrEnum):
    THROTTLED = "throttled once"
    THROTTLED_ON = "throttled from then on"
    SERVER = "5xx once"
    SERVER_ON = "5xx from then on, though it acts"
    LOST = "acted, the answer lost"
    LOST_ON = "acted, every answer lost from then on"
    DENIED = "access denied from then on"
    SHORT = "capacity short once"
    SHORT_ON = "capacity short from then on"
    DEAD = "dead state"
    UNSEEN = "not found for the first seconds"
    LOST_UNSEEN = "acted, the answer lost, and not found for the first seconds"


_ANY = (Kind.THROTTLED, Kind.THROTTLED_ON, Kind.SERVER, Kind.DENIED)
_ACTS = (*_ANY, Kind.SERVER_ON, Kind.LOST, Kind.LOST_ON)
_OF_NEW = (Kind.SHORT, Kind.SHORT_ON, Kind.DEAD, Kind.UNSEEN, Kind.LOST_UNSEEN)
POSSIBLE: Mapping[Sort, tuple[Kind, ...]] = {
    # A read does nothing that a lost answer could hide, needs no room, and what it reads is
    # either old or covered by the call that made it.
    Sort.READ: _ANY,
    # What is made may be short, may die, and may not be seen at first (NEW, SHORTAGES, DEATHS).
    Sort.CREATE: (*_ACTS, *_OF_NEW),
    # What is changed or removed was made by the same bake: it may not be found yet.
    Sort.CHANGE: (*_ACTS, Kind.UNSEEN),
    Sort.REMOVE: (*_ACTS, Kind.UNSEEN),
}
_PREFIXES = {
    Sort.READ: ("Describe", "Get", "Head", "List"),
    Sort.CREATE: ("Create", "Run", "Send", "Put"),
    Sort.REMOVE: ("Abort", "Delete", "Deregister", "Terminate"),
    Sort.CHANGE: (
        *("Attach", "Authorize", "Cancel", "Complete", "Disable", "Enable", "Modify", "Revoke"),
        *("Stop", "Upload"),
    ),
}
_CHANGES_OF_TAGS = ("CreateTags", "DeleteTags")
# Which reads do not show it yet.
NEW = {
    "RunInstances": ("instance",),
    "CreateImage": ("image", "snapshot"),
    "CreateSecurityGroup": ("security-group",),
    "CreateVolume": ("volume",),
    "SendCommand": ("command",),
    "PutParameter": ("parameter",),
}
# Sources: EC2 API reference, "Error codes"; Systems Manager API reference, PutParameter. Commands
# and objects need no room.
SHORTAGES = {
    "RunInstances": "InsufficientInstanceCapacity",
    "CreateImage": "ConcurrentSnapshotLimitExceeded",
    "CreateSecurityGroup": "SecurityGroupLimitExceeded",
    "CreateVolume": "VolumeLimitExceeded",
    "PutParameter": "ParameterLimitExceeded",
}
# The places inside (local/faults.py) where what this call has made dies, or never gets ready.
DEATHS = {
    "RunInstances": ("boot:{n}=out of memory", "boot:{n}=never", "agent:{n}=never", "agent:{n}=0"),
    "CreateImage": ("capture:{n}=disk full", "capture:{n}=invalid", "capture:{n}=never"),
}
# What a call answers that does not see yet what it is about.
NOT_FOUND = {
    "AttachVolume": "InvalidVolume.NotFound",
    "AuthorizeSecurityGroupIngress": "InvalidGroup.NotFound",
    "CancelCommand": "InvalidCommandId",
    "CreateTags": "InvalidAMIID.NotFound",
    "DeleteSecurityGroup": "InvalidGroup.NotFound",
    "DeleteSnapshot": "InvalidSnapshot.NotFound",
    "DeleteTags": "InvalidAMIID.NotFound",
    "DeleteVolume": "InvalidVolume.NotFound",
    "DeregisterImage": "InvalidAMIID.NotFound",
    "DisableImage": "InvalidAMIID.NotFound",
    "EnableImageDeprecation": "InvalidAMIID.NotFound",
    "ModifyImageAttribute": "InvalidAMIID.NotFound",
    "ModifySnapshotAttribute": "InvalidSnapshot.NotFound",
    "RevokeSecurityGroupIngress": "InvalidGroup.NotFound",
    "StopInstances": "InvalidInstanceID.NotFound",
    "TerminateInstances": "InvalidInstanceID.NotFound",
}
# S3 shows what it has, at once (S3 User Guide, consistency).
SEEN = frozenset(
    {
        *("PutObject", "DeleteObject", "CreateMultipartUpload", "UploadPart"),
        *("CompleteMultipartUpload", "AbortMultipartUpload"),
    }
)
UNSEEN_FOR = 3
_CODES = {
    "ec2": ("RequestLimitExceeded", "InternalError", "UnauthorizedOperation"),
    "ssm": ("ThrottlingException", "InternalServerError", "AccessDeniedException"),
    "s3": ("SlowDown", "InternalError", "AccessDenied"),
    "iam": ("Throttling", "InternalFailure", "AccessDenied"),
    "sts": ("Throttling", "InternalFailure", "AccessDenied"),
    "secretsmanager": ("ThrottlingException", "InternalServiceError", "AccessDeniedException"),
}
# What a change is about was seen many times when it is made: where it is not found then, the change
# may fail, and say so.
LONG_SEEN = "a machine has been started from the image, and its checks have run"
MAY_END = {
    "CreateTags": LONG_SEEN,
    "DeleteTags": LONG_SEEN,
    "DisableImage": "the image was looked at before the move, and is hours old at the least",
    "EnableImageDeprecation": "the same",
    "ModifyImageAttribute": LONG_SEEN,
    "ModifySnapshotAttribute": LONG_SEEN,
    "StopInstances": "every step has run on the machine",
}
# Who may not end an upload in parts leaves it, and S3 has answered: so it is forgotten until `reap`
# looks at what is older than 30 days. Both policies allow it.
FORGOTTEN = frozenset({"AbortMultipartUpload"})
# After these a bake ends as it would without a fault.
PASSING = frozenset({Kind.THROTTLED, Kind.SERVER, Kind.LOST, Kind.UNSEEN, Kind.LOST_UNSEEN})


def sort_of(call: str) -> Sort:
    """Raises: KeyError for a call of no known sort, so that it can't stay out of the matrix."""
    if call in _CHANGES_OF_TAGS:
        return Sort.CHANGE
    for sort, prefixes in _PREFIXES.items():
        if call.startswith(prefixes):
            return sort
    raise KeyError(f"is {call} a read, or what does it do?")


@dataclass(frozen=True)
class Run:
    """A bake that is recorded: with everything that the recipe can have, or without; and how it
    goes wrong by itself, so that its clean-up is seen too. `otherwise` names calls that ask for
    something else in it than in the runs before.

    `late`: its lease is over two thirds when its builder runs. `resumed`: the recorded one goes on
    with one that was kept. `reaped`: what is recorded is the `reap` of all that one has left.
    `rare`: recorded once, and its cells are for `make soak` alone.
    """

    name: str
    full: bool = True
    unproven: bool = False
    on_spot: bool = False
    over_ssh: bool = False
    with_file: bool = False
    with_secrets: bool = False
    late: bool = False
    resumed: bool = False
    reaped: bool = False
    rare: bool = False
    faults: tuple[str, ...] = ()
    otherwise: frozenset[str] = frozenset()


RUNS = (
    Run("the whole"),
    Run("without a bucket or a profile", full=False),
    Run("its checks can't run", unproven=True),
    # Its answer says that nothing was stored, and is wrong: the bake looks for it.
    Run("an upload fails", faults=("PutObject:1=InvalidRequest:after",)),
    Run(
        "on spot",
        full=False,
        on_spot=True,
        otherwise=frozenset({"RunInstances", "CreateImage"}),
    ),
    # No machine of this endpoint has an sshd: its calls before one is there are what differs.
    Run("over SSH", full=False, over_ssh=True, faults=("RunInstances:1=UnauthorizedOperation",)),
    # Too large for one PutObject, so that it goes in parts.
    Run("with a file of this machine", with_file=True, rare=True),
    Run("with secrets", full=False, with_secrets=True, otherwise=frozenset({"GetParameter"})),
    Run(
        "a part of a file can't be stored",
        with_file=True,
        faults=("UploadPart:1=InvalidRequest",),
        rare=True,
    ),
    Run(
        "longer than its lease",
        full=False,
        late=True,
        otherwise=frozenset({"CreateTags"}),
        rare=True,
    ),
    Run(
        "resumed",
        full=False,
        resumed=True,
        otherwise=frozenset(
            {
                *("DescribeInstances", "DescribeSecurityGroups", "CreateTags", "CreateImage"),
                *("DeleteSecurityGroup", "TerminateInstances"),
            }
        ),
        rare=True,
    ),
    Run(
        "reaped",
        unproven=True,
        reaped=True,
        otherwise=frozenset(
            {
                *("DescribeInstances", "DescribeVolumes", "DescribeImages", "DescribeSnapshots"),
                *("DescribeSecurityGroups", "PutParameter", "DeleteObject", "DeleteVolume"),
                *("TerminateInstances", "DeregisterImage", "DeleteSnapshot"),
                "DeleteSecurityGroup",
            }
        ),
        rare=True,
    ),
)
# Every removal of a bake is refused, so that its `reap` finds all kinds of things.
NOTHING_GOES = (
    *("TerminateInstances:*=UnauthorizedOperation", "DeleteVolume:*=UnauthorizedOperation"),
    *("DeregisterImage:*=UnauthorizedOperation", "DeleteSnapshot:*=UnauthorizedOperation"),
    *("DeleteSecurityGroup:*=UnauthorizedOperation", "DeleteObject:*=AccessDenied"),
    "PutParameter:2+=AccessDeniedException",
)


@dataclass(frozen=True)
class Call:
    service: str
    name: str


@dataclass(frozen=True)
class Cell:
    """`faults` are ordered beside those of the run. `first` is the call's first occurrence; `sure`
    is one that each recording of its run has."""

    run: Run
    call: Call
    nth: int
    first: bool
    kind: Kind
    faults: tuple[str, ...]
    sure: bool = True

    @property
    def codes(self) -> list[str]:
        """With which of these a call has failed, when the fault has hit."""
        return [fault.partition("=")[2].removesuffix(":after") for fault in self.faults]

    @property
    def must_hit(self) -> bool:
        """Not a place inside, nor a last look that another host need not take."""
        inside = self.kind is Kind.DEAD or self.faults[0].startswith("visible:")
        is_read = sort_of(self.call.name) is Sort.READ
        return self.sure and not inside and (self.first or not is_read)

    @property
    def must_pass(self) -> bool:
        """The bake ends as it would without the fault."""
        ends = self.kind is Kind.UNSEEN and self.call.name in MAY_END
        return self.kind in PASSING and not ends

    def __str__(self) -> str:
        return f"{self.call.name}:{self.nth} {self.kind} ({self.run.name}) {' '.join(self.faults)}"


def both(once: Counter[Call], again: Counter[Call]) -> tuple[Counter[Call], frozenset[Call]]:
    """How often a run makes each call, by two recordings, and which calls only one of them has.

    The fewer: a slow host looks more often. What only one has is a call like any other, but may
    be missing when its turn comes.
    """
    fewer = once & again
    calls = Counter({call: fewer[call] or n for call, n in (once | again).items()})
    return calls, frozenset(once.keys() ^ again.keys())


def cells(
    recorded: Mapping[Run, Counter[Call]], unsure: Mapping[Run, frozenset[Call]] | None = None
) -> list[Cell]:
    """Each call once, in the first run that makes it, and where it asks for something else."""
    seen: set[Call] = set()
    found: list[Cell] = []
    for run, calls in recorded.items():
        new = {call for call in calls if call not in seen or call.name in run.otherwise}
        for call in sorted(new, key=lambda call: call.name):
            seen.add(call)
            for nth in sorted({1, calls[call]}):
                sure = call not in (unsure or {}).get(run, ())
                found += cells_of(run, call, nth, sure=sure)
    return found


def cells_of(run: Run, call: Call, nth: int, *, sure: bool = True) -> Iterator[Cell]:
    """That occurrence of a call, with every kind of fault."""
    for kind in POSSIBLE[sort_of(call.name)]:
        for faults in _orders(call, nth, kind):
            yield Cell(run, call, nth, nth == 1, kind, faults, sure)


def _orders(call: Call, nth: int, kind: Kind) -> list[tuple[str, ...]]:
    """What is ordered from the endpoint for this kind; none where the call can't have it."""
    name = call.name
    throttled, server, denied = _CODES[call.service]
    match kind:
        case Kind.THROTTLED:
            return [(f"{name}:{nth}={throttled}",)]
        case Kind.THROTTLED_ON:
            return [(f"{name}:{nth}+={throttled}",)]
        case Kind.SERVER:
            return [(f"{name}:{nth}={server}",)]
        case Kind.SERVER_ON:
            return [(f"{name}:{nth}+={server}:after",)]
        case Kind.LOST:
            return [(f"{name}:{nth}=ConnectionLost:after",)]
        case Kind.LOST_ON:
            return [(f"{name}:{nth}+=ConnectionLost:after",)]
        case Kind.DENIED:
            return [(f"{name}:{nth}+={denied}",)]
        case Kind.SHORT:
            return [(f"{name}:{nth}={code}",) for code in _having(SHORTAGES, name)]
        case Kind.SHORT_ON:
            return [(f"{name}:{nth}+={code}",) for code in _having(SHORTAGES, name)]
        case Kind.DEAD:
            return [(place.format(n=nth),) for place in DEATHS.get(name, ())]
        case Kind.UNSEEN:
            if name in SEEN:
                return []
            if sort_of(name) is Sort.CREATE:
                # It is of everything that the call makes: once is enough.
                kinds = NEW[name] if nth == 1 else ()
                return [(f"visible:{kind}={UNSEEN_FOR}",) for kind in kinds]
            return [(f"{name}:{nth}-{nth + UNSEEN_FOR - 1}={NOT_FOUND[name]}",)]
        case Kind.LOST_UNSEEN:
            if name in SEEN:
                return []
            hidden = (f"visible:{kind}={UNSEEN_FOR}" for kind in NEW[name])
            return [(f"{name}:{nth}=ConnectionLost:after", *hidden)]


def _having(codes: Mapping[str, str], name: str) -> list[str]:
    return [codes[name]] if name in codes else []
