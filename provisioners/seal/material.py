"""What a secret looks like that nobody told us of, and how it is told from mere mention of one.

Each kind has a mark that is fast to look for; what follows the mark decides. Programs have the
marks in their tables and manuals have them in examples, so a key counts only when its body decodes
to one, and a credential only when a value stands behind its name.
"""

import re
from base64 import b64decode
from binascii import Error
from collections.abc import Callable
from dataclasses import dataclass

KEYS = "no private key in any block"
CREDENTIALS = "no credentials in any block"
BODY_LIMIT = 16 * 1024
LEAST_KEY = 32
HEADER = re.compile(rb"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?)-----")
END = b"-----END "
# Lines of a body as they stand in a file, or with their ends written as \n in JSON and programs.
LINE_END = re.compile(rb"\\r\\n|\\n|\r\n|\n")
ARMOUR = re.compile(rb"[A-Za-z-]+: .*")
BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
SIGNED = re.compile(rb"X-Amz-Signature=([0-9a-f]{64})")
ACCESS_KEY = re.compile(
    rb"(?:SecretAccessKey|aws_secret_access_key|AWS_SECRET_ACCESS_KEY)"
    # As JSON, programs and settings have it, or as the element of an answer of AWS.
    rb"(?:\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?|>\s{0,4})"
    rb"([A-Za-z0-9/+=_-]{40,})(?![A-Za-z0-9/+=_-])"
)
OPENSSH = b"openssh-key-v1\0"
SEQUENCE = 0x30


@dataclass(frozen=True)
class Kind:
    """`found` says what is at a mark, given the data and where the mark is; empty when nothing."""

    rule: str
    found: Callable[[bytes, int], str]


def private_key(data: bytes, at: int) -> str:
    header = HEADER.match(data, at)
    if header is None:
        return ""
    label = header[1].decode()
    body = data[header.end() : header.end() + BODY_LIMIT]
    return f"is a {label.lower()}" if is_key(label, decoded(body)) else ""


def decoded(body: bytes) -> bytes:
    """Of as many lines as are one: the rest of a deleted key may be gone."""
    lines = []
    for line in map(bytes.strip, LINE_END.split(body)):
        line = line.strip(b"\"',+ \t")
        if line.startswith(END) or END in line:
            break
        if not line or ARMOUR.fullmatch(line):
            continue
        if line.startswith(b"="):  # PGP's checksum
            break
        if BASE64.fullmatch(line) is None:
            break
        lines.append(line)
    text = b"".join(lines)
    try:
        return b64decode(text[: len(text) // 4 * 4])
    except Error:
        return b""


def is_key(label: str, content: bytes) -> bool:
    if len(content) < LEAST_KEY or len(set(content)) < LEAST_KEY // 2:
        return False
    if label.startswith("OPENSSH"):
        return content.startswith(OPENSSH)
    if label.startswith("PGP"):
        return content[0] & 0x80 != 0
    # DER, or what a passphrase makes of it: then nothing can be told but that it is there.
    return content[0] == SEQUENCE or label.startswith("ENCRYPTED") or len(content) >= 128


def presigned_address(data: bytes, at: int) -> str:
    return "is a presigned address" if SIGNED.match(data, at) else ""


def access_key(data: bytes, at: int) -> str:
    found = ACCESS_KEY.match(data, at)
    if found is None or b"example" in found[1].lower() or len(set(found[1])) < 16:
        return ""
    return "is a secret access key"


MARKS = {
    b"-----BEGIN ": Kind(KEYS, private_key),
    b"X-Amz-Signature=": Kind(CREDENTIALS, presigned_address),
    b"SecretAccessKey": Kind(CREDENTIALS, access_key),
    b"aws_secret_access_key": Kind(CREDENTIALS, access_key),
    b"AWS_SECRET_ACCESS_KEY": Kind(CREDENTIALS, access_key),
}
