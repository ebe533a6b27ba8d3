"""The only place where shell text is put together.

`payload` packs a job; `unpack` and `start` are the lines that run it on the machine; `reply`
sends its log and result back in one piece of at most 24,000 characters, which is what Run Command
keeps, and leaves the rest on the machine to be fetched by `piece`.
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

WORK = "/run/amibuild"
# The timer that ends the machine when no job comes any more: begin-lease.sh begins it.
LEASE_UNIT = "amibuild-lease.timer"
LEASE = f"/run/systemd/transient/{LEASE_UNIT}"
# 17,400 bytes are 23,200 characters of base64; with the header that stays under 24,000.
REPLY_BYTES = 17_400
# Text becomes a tenth of it. What does not shrink would take 480 commands: of it less comes.
LOG_LIMIT_BYTES = 8 * 1024 * 1024
PACKED_LIMIT_BYTES = 1024 * 1024
LOG_CUT_BYTES = 512 * 1024
HEADER = re.compile(
    r"amibuild-reply (?P<exit>[0-9]{1,3}) (?P<size>[0-9]+) (?P<sha256>[0-9a-f]{64})"
)
# Of a log, which is cut at 8 MiB, and a result, packed or not: more is no reply of ours.
REPLY_LIMIT_BYTES = 64 * 1024 * 1024


class Damaged(Exception):
    """What came back is not what was sent."""


@dataclass(frozen=True)
class Reply:
    """The first piece of a reply, and what is needed to know when it is whole."""

    exit_code: int
    size: int
    sha256: str
    first: bytes


def quote(word: str) -> str:
    return shlex.quote(word)


def exports(environment: Mapping[str, str]) -> str:
    """`export NAME=value` lines, safe for any value. Names are the library's, so they are safe."""
    return "".join(f"export {name}={quote(value)}\n" for name, value in environment.items())


def folder(job_name: str) -> str:
    return f"{WORK}/{job_name}"


def payload(job: RemoteJob) -> bytes:
    """The job as a tar.gz that is the same for the same job: no times, no owners' names."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        _add(tar, "run.sh", job.script.encode(), 0o700)
        _add(tar, "environment.sh", exports(job.environment).encode(), 0o600)
        for file in job.files:
            _add(tar, file.path, file.content, file.mode)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))


def prepare(job_name: str) -> str:
    """An empty folder for the job, which only root can enter."""
    at = quote(folder(job_name))
    return f"set -eu\numask 077\nrm -rf {at}\nmkdir -p {at}/work\n"


def unpack_inline(job_name: str, packed: bytes) -> str:
    at = quote(folder(job_name))
    text = base64.encodebytes(packed).decode()
    return f"base64 -d <<'AMIBUILD' | tar -xzf - -C {at}/work\n{text}AMIBUILD\n"


def store_piece(job_name: str, packed: bytes, number: int, piece: bytes) -> str:
    """Puts down one piece of a payload that is too large for a command: they come in any order."""
    at = _pieces(job_name, packed)
    text = base64.encodebytes(piece).decode()
    return (
        f"set -eu\numask 077\nmkdir -p {at}\n"
        f"base64 -d >{at}/{number:04} <<'AMIBUILD'\n{text}AMIBUILD\n"
    )


def join_pieces(job_name: str, packed: bytes) -> str:
    at = _pieces(job_name, packed)
    return f"cat {at}/* >{quote(folder(job_name))}/payload.tar.gz\nrm -rf {at}\n"


def _pieces(job_name: str, packed: bytes) -> str:
    """Of this payload alone: what a dead bake sent of another is nobody's."""
    return quote(f"{folder(job_name)}.{hashlib.sha256(packed).hexdigest()[:16]}")


def fetch_payload(job_name: str, url: str) -> str:
    """Fetches the payload from a presigned URL, with what the image has: curl, wget or python3."""
    at = quote(folder(job_name))
    python = "import sys, urllib.request as u; u.urlretrieve(sys.argv[1], sys.argv[2])"
    return (
        f"url={quote(url)}\n"
        f"out={at}/payload.tar.gz\n"
        'if command -v curl >/dev/null; then curl -fsS --retry 5 -o "$out" "$url"\n'
        'elif command -v wget >/dev/null; then wget -q -O "$out" "$url"\n'
        f'else python3 -c {quote(python)} "$url" "$out"; fi\n'
    )


def unpack_payload(job_name: str, packed: bytes) -> str:
    """Checks the payload that came by pieces or by URL, then unpacks it."""
    at = quote(folder(job_name))
    digest = hashlib.sha256(packed).hexdigest()
    return (
        f"echo '{digest}  '{at}/payload.tar.gz | sha256sum --check --quiet -\n"
        f"tar -xzf {at}/payload.tar.gz -C {at}/work\n"
        f"rm -f {at}/payload.tar.gz\n"
    )


# Of a job that has secrets: those, and the certificate that its reply is closed for.
SECRETS_FILE, READER_FILE = "secrets.cms", "reader.pem"


def make_key(job_name: str, bits: int) -> str:
    """Makes a key for this job on the machine, and prints a certificate with its public half."""
    at = quote(_key_folder(job_name))
    return f"""\
set -eu
umask 077
command -v openssl >/dev/null || {{
    echo "secrets need openssl on the machine: install it in an earlier step" >&2
    exit 1
}}
rm -rf {at}
mkdir -p {at}
openssl req -x509 -newkey rsa:{bits} -nodes -days 1 -subj /CN=amibuild \\
    -keyout {at}/key.pem -out {at}/certificate.pem 2>{at}/said || {{ cat {at}/said >&2; exit 1; }}
cat {at}/certificate.pem
"""


def forget_secrets(job_name: str) -> str:
    """For a job that was killed: nothing runs a trap then."""
    return f"rm -rf {quote(folder(job_name))} {quote(_key_folder(job_name))}\n"


def _key_folder(job_name: str) -> str:
    return f"{folder(job_name)}.key"


def _files(at: str) -> str:
    """Where a job's files are, in its folder."""
    return f"{at}/work"


def _open_envelope(job_name: str) -> str:
    at, key = quote(folder(job_name)), quote(_key_folder(job_name))
    closed, reader = (f"{_files(at)}/{name}" for name in (SECRETS_FILE, READER_FILE))
    return f"""\
trap 'rm -rf {at}/secrets {key}' EXIT
trap 'exit 143' HUP INT TERM
mkdir -m 700 {at}/secrets
openssl cms -decrypt -inform DER -in {closed} -inkey {key}/key.pem \\
    -recip {key}/certificate.pem -out {at}/secrets/all.tar
tar -xf {at}/secrets/all.tar -C {at}/secrets
rm -rf {key} {at}/secrets/all.tar {closed}
mv {reader} {at}/{READER_FILE}
export AMIBUILD_SECRETS={at}/secrets
"""


_CLOSE_REPLY = f"""\
openssl cms -encrypt -binary -aes256 -outform DER -in reply.tar.gz -out reply.cms {READER_FILE} ||
    exit 1
mv reply.cms reply.tar.gz
"""
# A line for whoever looks at the command in the console.
_LAST_LINES = "tail -n 20 log | cut -c1-390 >&2\n"


def start(job_name: str, *, secrets: bool = False) -> str:
    """Runs the job and replies. The last command's exit code is what SSM reports.

    A job is a sign of life, so it sets the machine's lease back to its full length. With `secrets`
    those are there, in memory, while it runs, and only the reader of the reply learns what the job
    said.
    """
    at = quote(folder(job_name))
    return f"""\
{_open_envelope(job_name) if secrets else ""}cd {at}/work
set +e
[ ! -e {LEASE} ] || systemctl restart {LEASE_UNIT}
(
    . ./environment.sh
    rm -f ./environment.sh
    export AMIBUILD_RESULT={at}/result
    umask 022
    exec bash run.sh
) </dev/null >{at}/log 2>&1
code=$?
cd {at}
touch result
mkdir -p sent
cat result >sent/result
cut_log() {{
    size=$(stat -c %s log)
    [ "$size" -gt "$1" ] || {{
        cat log
        return
    }}
    head -c $(($1 / 8)) log
    printf '\\n... %s bytes left out ...\\n' $((size - $1))
    tail -c $(($1 - $1 / 8)) log
}}
for limit in {LOG_LIMIT_BYTES} {LOG_CUT_BYTES}; do
    cut_log $limit >sent/log
    tar -czf reply.tar.gz -C sent log result
    [ "$(stat -c %s reply.tar.gz)" -gt {PACKED_LIMIT_BYTES} ] || break
done
{_CLOSE_REPLY if secrets else ""}\
echo "amibuild-reply $code $(stat -c %s reply.tar.gz) $(sha256sum <reply.tar.gz | cut -c1-64)"
head -c {REPLY_BYTES} reply.tar.gz | base64 -w0
{"" if secrets else _LAST_LINES}\
exit $code
"""


def last_lines(job_name: str) -> str:
    """Prints the end of what a job has said so far."""
    return f"tail -n 20 {quote(folder(job_name))}/log | cut -c1-390\n"


def piece(job_name: str, offset: int) -> str:
    """Prints the piece of a reply that begins at `offset`."""
    at = quote(folder(job_name))
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


def read_piece(stdout: str) -> bytes:
    """Raises: Damaged."""
    try:
        return base64.b64decode("".join(stdout.split()), validate=True)
    except ValueError as error:  # binascii's own is one
        raise Damaged(str(error)) from error


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
