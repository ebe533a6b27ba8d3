"""With which key a copy is encrypted.

Sources: EC2 API reference, CopyImage and CopySnapshot, Encrypted and KmsKeyId: a copy of an
encrypted snapshot is encrypted, with the default key unless one is named; a key needs Encrypted;
keys are looked up after the answer, so a wrong one makes the copy fail later.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from amibuild.errors import HostError
from amibuild.local.overlay.desk import Refusal
from amibuild.local.overlay.snapshots import LocalSnapshot

DEFAULT_KEY = "alias/aws/ebs"


def chosen_key(
    backend: Any, params: dict[str, Any], sources: Iterable[LocalSnapshot]
) -> str | None:
    """The key as the request names it; None for a copy that is not encrypted."""
    wanted, key = params.get("Encrypted"), params.get("KmsKeyId")
    if key and not wanted:
        raise Refusal(
            "InvalidParameterDependency",
            "The parameter KmsKeyId requires the parameter Encrypted to be set.",
        )
    encrypted = any(source.encrypted for source in sources)
    if encrypted and wanted is False:
        raise Refusal(
            "InvalidParameterCombination",
            "An unencrypted copy of an encrypted snapshot can't be made.",
        )
    if not wanted and not encrypted:
        return None
    return str(key) if key else str(backend.default_kms_key_id)


def key_arn(backend: Any, key: str) -> str:
    """Its ARN. Raises: HostError when the region has no such key."""
    if key == backend.default_kms_key_id or key.endswith(DEFAULT_KEY):
        return str(backend.default_kms_key_id)
    # 0.3 s to import, and hardly ever needed.
    from moto.kms.models import kms_backends

    kms: Any = kms_backends[backend.account_id][backend.region_name]
    alias = key.rpartition(":")[2]
    named = kms.get_key_id_from_alias(alias) if alias.startswith("alias/") else kms.get_key_id(key)
    if named not in kms.keys:
        raise HostError(f"The KMS key {key} does not exist, or can't be used")
    return str(kms.keys[named].arn)


def has_default_key(backend: Any, snapshots: Iterable[LocalSnapshot]) -> bool:
    """Whether one of them is encrypted in a way that no other account can undo."""
    default = {None, DEFAULT_KEY, backend.default_kms_key_id}
    return any(s.encrypted and s.kms_key_id in default for s in snapshots)
