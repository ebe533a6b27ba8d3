"""What a request asks for that has to be checked the same way in many operations."""

from __future__ import annotations

import re
from typing import Any

from amibuild.local.overlay.desk import Refusal

# RegisterImage, CreateImage and CopyImage, Name.
_NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")
_ACCOUNT = re.compile(r"[0-9]{12}")
ALIASES = {"self", "amazon", "aws-backup-vault", "aws-marketplace"}


def refuse_parameters(params: dict[str, Any], *names: str) -> None:
    """None of these may be asked for: they would have no effect here, and nobody would notice."""
    for name in names:
        if params.get(name):
            raise Refusal("UnsupportedOperation", f"the local endpoint has no {name}")


def check_new_name(backend: Any, name: str) -> None:
    """Source: Error codes, InvalidAMIName.Malformed and InvalidAMIName.Duplicate."""
    if not _NAME.fullmatch(name):
        raise Refusal(
            "InvalidAMIName.Malformed",
            "AMI names must be between 3 and 128 characters long, and may contain letters, "
            "numbers, '(', ')', '.', '-', '/' and '_'",
        )
    for image in backend.amis.values():
        if image.name == name and image.owner_id == backend.account_id:
            raise Refusal(
                "InvalidAMIName.Duplicate",
                f"AMI name {name} is already in use by AMI {image.id}",
            )


def check_owners(owners: list[str], *others: str) -> None:
    """Source: Error codes, InvalidUserID.Malformed."""
    for owner in owners:
        if owner not in ALIASES.union(others) and not _ACCOUNT.fullmatch(owner):
            raise Refusal("InvalidUserID.Malformed", f'Invalid user id: "{owner}"')


def check_account(account: str) -> None:
    """Source: Error codes, InvalidAMIAttributeItemValue."""
    if not _ACCOUNT.fullmatch(account):
        raise Refusal(
            "InvalidAMIAttributeItemValue",
            f'Invalid attribute item value "{account}" for userId item type.',
        )


def check_choice(value: Any, parameter: str, *choices: str) -> None:
    if value is not None and value not in choices:
        raise Refusal("InvalidParameterValue", f"Invalid value '{value}' for {parameter}.")
