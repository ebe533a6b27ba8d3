"""Secrets on their way to a machine: closed for the key that the machine has just made.

A command's text is kept by AWS, and so is what travels in it. So the machine makes a key of its
own for each job, and what comes is a CMS envelope (RFC 5652) that only this key opens. Nothing but
openssl is needed there. cryptography, which paramiko brings, is what closes it here.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

from cryptography import x509
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from amibuild.secret import Secret

FILE = "secrets.cms"


def close(secrets: Mapping[str, Secret], certificate: str) -> bytes:
    """A tar with a file for each secret, as DER. `certificate` is the machine's own, as PEM.

    Raises: ValueError when that is no certificate.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, secret in sorted(secrets.items()):
            content = secret.reveal().encode()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o400
            tar.addfile(member, io.BytesIO(content))
    return (
        pkcs7.PKCS7EnvelopeBuilder()
        .set_data(buffer.getvalue())
        .add_recipient(x509.load_pem_x509_certificate(certificate.encode()))
        .set_content_encryption_algorithm(algorithms.AES256)
        .encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])
    )
