"""What a refused call tells its reader to add to the role."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from amibuild.aws.errors import calling
from amibuild.errors import Denied

ROLE = "User: arn:aws:sts::123456789012:assumed-role/bake/me is not authorized to perform: "
WHY = " because no identity-based policy allows it"


def hint(operation: str, code: str, message: str) -> str:
    answer = {"Error": {"Code": code, "Message": message}}
    with pytest.raises(Denied) as denied, calling(operation, "us-east-1", "a-thing"):
        raise ClientError(answer, operation)  # type: ignore[arg-type]  # the stubs want it whole
    assert denied.value.hint is not None
    return denied.value.hint


# The first as EC2 and Systems Manager say it, the others as Secrets Manager, KMS and S3 do.
@pytest.mark.parametrize(
    ("operation", "code", "message", "action"),
    [
        (
            "RunInstances",
            "UnauthorizedOperation",
            f"You are not authorized to perform this operation. {ROLE}iam:PassRole on resource: "
            f"arn:aws:iam::123456789012:role/games{WHY}. Encoded authorization failure message: x",
            "iam:PassRole",
        ),
        (
            "RunInstances",
            "UnauthorizedOperation",
            f"{ROLE}ec2:CreateTags on resource: arn:aws:ec2:us-east-1:123456789012:volume/*{WHY}",
            "ec2:CreateTags",
        ),
        (
            "GetParameter",
            "AccessDeniedException",
            f"{ROLE}kms:Decrypt on resource: arn:aws:kms:us-east-1:123456789012:key/1234{WHY}",
            "kms:Decrypt",
        ),
        (
            "GetParameter",
            "AccessDeniedException",
            "The ciphertext refers to a customer master key that does not exist, does not exist in "
            "this region, or you are not allowed to access. (Service: AWSKMS; Status Code: 400)",
            "kms:Decrypt",
        ),
        (
            "GetSecretValue",
            "AccessDeniedException",
            "Access to KMS is not allowed",
            "kms:Decrypt",
        ),
        (
            "PutObject",
            "AccessDenied",
            f"{ROLE}kms:GenerateDataKey on resource: arn:aws:kms:us-east-1:1:key/1234{WHY}",
            "kms:GenerateDataKey",
        ),
    ],
)
def test_the_permission_that_the_answer_names_is_told(
    operation: str, code: str, message: str, action: str
) -> None:
    assert hint(operation, code, message).startswith(f"the role needs {action}; ")


@pytest.mark.parametrize(
    ("operation", "code", "action"),
    [
        ("RunInstances", "UnauthorizedOperation", "ec2:RunInstances"),
        ("GetSecretValue", "AccessDeniedException", "secretsmanager:GetSecretValue"),
        ("GetObject", "403", "s3:GetObject"),
        ("HeadBucket", "403", "s3:ListBucket"),
    ],
)
def test_the_calls_own_permission_is_told_when_the_answer_names_none(
    operation: str, code: str, action: str
) -> None:
    for message in ("Forbidden", "You are not authorized to perform this operation. Kx/KMS9a/wB"):
        assert hint(operation, code, message).startswith(f"the role needs {action}; ")


def test_nothing_else_of_the_answer_is_repeated() -> None:
    name = "a-value-that-nobody-knows"
    message = f"{ROLE}ssm:GetParameter on resource: arn:aws:ssm:us-east-1:1:parameter/{name}{WHY}"
    told = hint("GetParameter", "AccessDeniedException", message)
    assert "ssm:GetParameter" in told
    assert name not in told
