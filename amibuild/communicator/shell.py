"""Shell text for the machine: what goes there, and what comes back.

`payload` packs a job, and the lines that unpack it go into the script of unit.py, which runs it on
the machine. A reply brings its log and result back in one piece of at most 24,000 characters, which
is what Run Command keeps, and leaves the rest on the machine to be fetched by `piece`.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import shlex
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from amibuild.communicator.base import RemoteJob
from amibuild.communicator.packing import Packer, pack
from amibuild.library.step import StepFile
from amibuild.secret import longest, masked

WORK = "/run/amibuild"
RUN = "run.sh"
# Some services have a folder of their own there, by the name of their step.
ID_PREFIX = "job-"
# A unit's name has at most 255 characters.
NAME_LENGTH = 100
# 17,400 bytes are 23,200 characters of base64; with the header that stays under 24,000.
REPLY_BYTES = 17_400
HEADER = re.compile(
    r"amibuild-reply (?P<exit>[0-9]{1,3}) (?P<size>[0-9]+) (?P<sha256>[0-9a-f]{64})"
)
# What a machine says in place of a reply, when a job did not come to its end by itself.
ENDED = re.compile(r"amibuild-ended (?P<result>[a-z-]+)(?: (?P<status>[A-Z0-9]+))?")
CUT = re.compile(r"(\n\.\.\. [0-9]+ bytes left out \.\.\.\n)")
# The last line of a job that failed while there was no room below WORK, and what to do about it.
FULL = "amibuild: /run was full: what a step prints, and what lies in its folder, is there"
FULL_HINT = (
    "/run of the machine is full. It is memory, and has what a step prints and puts in its own "
    "folder: let it work in /var/tmp, or name a larger machine in builder.instance_types"
)
# Of a log, which is cut at 8 MiB, and a result, packed or not: more is no reply of ours.
REPLY_LIMIT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Unit:
    """Where a job is on the machine. `id` is of this one sending: by it a second arrival of the
    same command knows the first, and a job that is run again is another."""

    job: str
    id: str

    @property
    def jobs_folder(self) -> str:
        """Of all that were sent by that name."""
        return f"{WORK}/{self.job}"

    @property
    def folder(self) -> str:
        return f"{self.jobs_folder}/{ID_PREFIX}{self.id}"

    @property
    def names(self) -> str:
        """What the names of all units of the job begin with."""
        return f"amibuild-job-{re.sub('[^A-Za-z0-9_.-]', '_', self.job)[:NAME_LENGTH]}-"

    @property
    def name(self) -> str:
        return f"{self.names}{self.id}.service"


class Damaged(Exception):
    """What came back is not what was sent."""


@dataclass(frozen=True)
class Reply:
    """The first piece of a reply, and what is needed to know when it is whole."""

    exit_code: int
    size: int
    sha256: str
    first: bytes


@dataclass(frozen=True)
class End:
    """How a job's unit ended, in systemd's words ($SERVICE_RESULT, $EXIT_STATUS), and its last
    lines. Two words are ours: `gone` without a trace, as `unknown` here altogether."""

    result: str
    status: str | None
    said: str

    def reason(self, timeout_s: int) -> str:
        match self.result:
            case "timeout":
                return f"did not end within {timeout_s} s"
            case "exit-code":
                return f"could not be run to its end: exit code {self.status}"
            case _:
                return f"was stopped on the machine ({self.result})"


def quote(word: str) -> str:
    return shlex.quote(word)


def exports(environment: Mapping[str, str]) -> str:
    """`export NAME=value` lines, safe for any value. Names are the library's, so they are safe."""
    return "".join(f"export {name}={quote(value)}\n" for name, value in environment.items())


def payload(job: RemoteJob, level: int = 9) -> bytes:
    """The job as a tar.gz that is the same for the same job: no times, no owners' names."""
    parts: list[bytes] = []
    pack_job(job, Packer(parts.append, level), {})
    return b"".join(parts)


def pack_job(job: RemoteJob, packer: Packer, there: Mapping[str, str]) -> None:
    environment = StepFile("environment.sh", exports(job.environment).encode(), 0o600)
    script = StepFile(RUN, job.script.encode(errors="surrogateescape"), 0o700)
    pack((environment, *job.files), script, packer, there)


def owners(job: RemoteJob) -> str:
    """Lines that end a script where somebody is not known whom a file is to belong to: tar would
    give it to root."""
    asked = {file.owner: file.path for file in reversed(job.files) if file.owner}
    lines = []
    for owner, path in sorted(asked.items()):
        user, _, group = owner.partition(":")
        told = quote(f"{path} is to belong to {owner}, and the machine has no such user or group")
        known = f"getent passwd {quote(user)} >/dev/null && getent group {quote(group)} >/dev/null"
        lines.append(f"{{ {known}; }} || {{\n    echo {told} >&2\n    exit 1\n}}\n")
    return "".join(lines)


def unpack_inline(unit: Unit, packed: bytes) -> str:
    text = base64.encodebytes(packed).decode()
    return f"base64 -d <<'AMIBUILD' | tar -xzpf - -C {quote(unit.folder)}/work\n{text}AMIBUILD\n"


def store_piece(unit: Unit, number: int, piece: bytes) -> str:
    """Puts down one piece of a payload that is too large for a command: they come in any order,
    and any of them twice."""
    at = f"{quote(unit.folder)}/pieces"
    text = base64.encodebytes(piece).decode()
    return (
        f"set -eu\numask 077\nmkdir -p {at}\nnew=$(mktemp {at}.XXXXXX)\n"
        f"base64 -d >\"$new\" <<'AMIBUILD'\n{text}AMIBUILD\n"
        f'mv "$new" {at}/{number:04}\n'
    )


def join_pieces(unit: Unit) -> str:
    at = quote(unit.folder)
    return f"cat {at}/pieces/* >{at}/payload.tar.gz\n"


def fetch_payload(unit: Unit, url: str) -> str:
    """Fetches the payload from a presigned URL, with what the image has: curl, wget or python3."""
    at = quote(unit.folder)
    python = "import sys, urllib.request as u; u.urlretrieve(sys.argv[1], sys.argv[2])"
    return (
        f"url={quote(url)}\n"
        f"out={at}/payload.tar.gz\n"
        'if command -v curl >/dev/null; then curl -fsS --retry 5 -o "$out" "$url"\n'
        'elif command -v wget >/dev/null; then wget -q -O "$out" "$url"\n'
        f'else python3 -c {quote(python)} "$url" "$out"; fi\n'
    )


def unpack_payload(unit: Unit, packed: bytes) -> str:
    """Checks the payload that came by pieces or by URL, then unpacks it."""
    at = quote(unit.folder)
    digest = hashlib.sha256(packed).hexdigest()
    return (
        f"echo '{digest}  '{at}/payload.tar.gz | sha256sum --check --quiet -\n"
        f"tar -xzpf {at}/payload.tar.gz -C {at}/work\n"
    )


def piece(unit: Unit, offset: int) -> str:
    """Prints the piece of a reply that begins at `offset`."""
    at = quote(unit.folder)
    return f"tail -c +{offset + 1} {at}/reply.tar.gz | head -c {REPLY_BYTES} | base64 -w0\n"


def read_reply(stdout: str) -> Reply | None:
    """The first piece of a reply; None when the script never got so far. Raises: Damaged."""
    header, _, body = stdout.partition("\n")
    found = HEADER.fullmatch(header.strip())
    if found is None:
        return None
    if len(found["size"]) > len(str(REPLY_LIMIT_BYTES)) or int(found["size"]) > REPLY_LIMIT_BYTES:
        raise Damaged(f"it would have more than {REPLY_LIMIT_BYTES} bytes")
    return Reply(int(found["exit"]), int(found["size"]), found["sha256"], read_piece(body))


def read_end(stdout: str) -> End | None:
    """How a job ended that sends no reply; None when its script never got so far."""
    header, _, said = stdout.partition("\n")
    found = ENDED.fullmatch(header.strip())
    return End(found["result"], found["status"], said) if found else None


def hint_before(said: str) -> str | None:
    """For a command that ended before its job began: all that it writes is below WORK."""
    return FULL_HINT if "No space left on device" in said else None


def read_piece(stdout: str) -> bytes:
    """Raises: Damaged."""
    try:
        return base64.b64decode("".join(stdout.split()), validate=True)
    except ValueError as error:  # binascii's own is one
        raise Damaged(str(error)) from error


def masked_log(log: str) -> str:
    """A log without secrets. Where its middle was left out, what is next to the gap goes too: half
    of a secret is no text that could be known."""
    texts = CUT.split(log)
    reach, last = longest(), len(texts) - 1
    for at, text in enumerate(texts):
        if at % 2 == 0:  # the gaps are the others
            shown = masked(text)
            begin, end = reach if at else 0, len(shown) - (reach if at < last else 0)
            texts[at] = shown[begin : max(begin, end)]
    return "".join(texts)


def open_reply(packed: bytes) -> tuple[str, bytes]:
    """The log as text and the result, from a whole reply. Raises: Damaged.

    It is as the machine made it, and that may be half of it when its disk is full.
    """
    try:
        with gzip.open(io.BytesIO(packed)) as zipped:
            unpacked = zipped.read(REPLY_LIMIT_BYTES + 1)
        if len(unpacked) > REPLY_LIMIT_BYTES:
            raise Damaged(f"unpacked it has more than {REPLY_LIMIT_BYTES} bytes")
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            # A link among them would be followed, round in a circle too.
            found = {one.name: tar.extractfile(one) for one in tar.getmembers() if one.isreg()}
            log, result = found.get("log"), found.get("result")
            return (
                log.read().decode(errors="replace") if log else "",
                result.read() if result else b"",
            )
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise Damaged(str(error)) from error
