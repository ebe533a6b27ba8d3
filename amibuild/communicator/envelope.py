"""Secrets on their way to a machine, and what it says back: closed for the one who is to read it.

A command's text and its output are kept by AWS. So the machine makes a key of its own for each job
that has secrets, and what comes is a CMS envelope (RFC 5652) that only this key opens; what the job
said, and may have said of them, goes back in one that only this process opens. Nothing but openssl
is needed there. cryptography, which paramiko brings, does the same here.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import NameOID

from amibuild.communicator import shell, unit
from amibuild.communicator.base import TAIL_LINES, RemoteJob
from amibuild.errors import CommandFailed
from amibuild.library.step import StepFile
from amibuild.secret import masked

KEY_BITS = 3072


def close(job: RemoteJob, certificate: str) -> bytes:
    """A tar with a file for each secret, as DER. `certificate` is the machine's own, as PEM.

    Raises: ValueError when that is no certificate.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        revealed = {name: secret.reveal().encode() for name, secret in job.secrets.items()}
        revealed |= {file.path: file.content for file in job.closed}
        for name, content in sorted(revealed.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o400
            member.mtime = int(datetime.now(UTC).timestamp())
            tar.addfile(member, io.BytesIO(content))
    return (
        pkcs7.PKCS7EnvelopeBuilder()
        .set_data(buffer.getvalue())
        .add_recipient(x509.load_pem_x509_certificate(certificate.encode()))
        .set_content_encryption_algorithm(algorithms.AES256)
        .encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])
    )


def with_secrets(job: RemoteJob, certificate: str) -> RemoteJob:
    """The job with its secrets as a file that only the machine can open. Raises: CommandFailed."""
    try:
        closed = close(job, certificate)
    except ValueError as error:
        raise CommandFailed(
            what=job.name,
            exit_code=None,
            reason="the machine made no key that its secrets could be closed for",
            tail=certificate.splitlines()[-TAIL_LINES:],
        ) from error
    return with_reader(replace(job, files=(*job.files, StepFile(unit.SECRETS_FILE, closed, 0o600))))


def with_reader(job: RemoteJob) -> RemoteJob:
    """The job with what its reply is closed for."""
    return replace(job, files=(*job.files, StepFile(unit.READER_FILE, own_certificate())))


def opened(job: RemoteJob, packed: bytes) -> tuple[str, bytes]:
    """The log and the result of a whole reply. Raises: Damaged, ValueError."""
    return shell.open_reply(open_reply(packed) if job.is_secret else packed)


@contextmanager
def undamaged(job: RemoteJob, exit_code: int | None, said: str) -> Iterator[None]:
    """Around what reads a reply. Raises: CommandFailed when it is not what was sent."""
    try:
        yield
    except (shell.Damaged, ValueError) as error:
        raise CommandFailed(
            what=job.name,
            exit_code=exit_code,
            reason=f"its log came back damaged: {error}",
            tail=masked(said).splitlines()[-TAIL_LINES:],
            hint="a full disk of the machine does that too",
        ) from error


def open_reply(closed: bytes) -> bytes:
    """What the machine closed for us. Raises: ValueError when it did not."""
    key, certificate = _own()
    return pkcs7.pkcs7_decrypt_der(closed, certificate, key, [])


def own_certificate() -> bytes:
    """Of this process, as PEM: what a machine closes its replies for."""
    return _own()[1].public_bytes(Encoding.PEM)


@cache
def _own() -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    """Lives as long as the process, and in its memory alone."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "amibuild")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A machine's clock may be behind, and nobody trusts it for its dates.
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    return key, made
