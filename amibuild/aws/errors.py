"""botocore's errors as amibuild's, mapped once.

Source of the codes: EC2 API reference, "Error codes"; SSM API reference, per operation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

from amibuild.aws.answers import StrangeAnswer
from amibuild.errors import AwsError, Denied, Duplicate, InUse, NoCapacity, NotFound, Throttled

_BY_CODE: dict[str, type[AwsError]] = {
    "403": Denied,  # HeadBucket has no body to tell more
    "AccessDenied": Denied,
    "AccessDeniedException": Denied,
    "AuthFailure": Denied,
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": Denied,
    "ExpiredToken": Denied,
    "InvalidClientTokenId": Denied,
    "UnauthorizedOperation": Denied,
    "UnrecognizedClientException": Denied,
    "RequestLimitExceeded": Throttled,
    "SlowDown": Throttled,
    "Throttling": Throttled,
    "ThrottlingException": Throttled,
    "DependencyViolation": InUse,
    "IncorrectState": InUse,  # a volume that is still being made
    "InvalidSnapshot.InUse": InUse,
    "VolumeInUse": InUse,
    "TooManyUpdates": InUse,  # two calls for one parameter at a time
    "InvalidAMIName.Duplicate": Duplicate,
    "InvalidGroup.Duplicate": Duplicate,
    "InvalidKeyPair.Duplicate": Duplicate,
    "InvalidPermission.Duplicate": Duplicate,
    "ParameterAlreadyExists": Duplicate,
    "InsufficientInstanceCapacity": NoCapacity,
    "InsufficientCapacity": NoCapacity,
    "InstanceLimitExceeded": NoCapacity,
    "MaxSpotInstanceCountExceeded": NoCapacity,
    "SpotMaxPriceTooLow": NoCapacity,
    "VcpuLimitExceeded": NoCapacity,
    "Unsupported": NoCapacity,  # "instance type is not supported in this Availability Zone"
    "404": NotFound,
    "InvalidAMIID.Unavailable": NotFound,
    "InvalidInstanceId": NotFound,  # SSM: not registered (any longer)
    "InvocationDoesNotExist": NotFound,
    "NoSuchBucket": NotFound,
    "NoSuchEntity": NotFound,
    "NoSuchKey": NotFound,
    "ParameterNotFound": NotFound,
    "ResourceNotFoundException": NotFound,  # Secrets Manager
    "ServiceSettingNotFound": NotFound,
}
_OF_S3 = {"HeadBucket", "PutObject", "GetObject", "DeleteObject", "ListObjectsV2"}
_OF_PROMOTION = {"DisableImage", "EnableImageDeprecation", "GetParameterHistory", "GetParameters"}
_OF_BOTH = {"GetParametersByPath", "PutParameter"}
# Of prune too.
_OF_REMOVAL = {"DeleteSnapshot", "DeregisterImage"}
# What was missing, as IAM says it (IAM user guide, "Troubleshoot access denied error messages").
_MISSING = re.compile(r"not authorized to perform: ([\w-]+:\w+)", re.ASCII)
# Secrets Manager's "Access to KMS is not allowed", and KMS itself behind Parameter Store and S3:
# "The ciphertext refers to a customer master key that does not exist, [...] or you are not allowed
# to access." Neither says what was asked of the key: whoever reads has it decrypt.
_BY_A_KEY = re.compile(r"\bKMS\b|\bciphertext\b")
# IAM calls these by another name.
_ACTIONS = {"HeadBucket": "ListBucket", "ListObjectsV2": "ListBucket"}
MORE_TYPES = "name more instance types in builder.instance_types"
_HINTS: dict[type[AwsError], str] = {
    Denied: "check the credentials and the permissions of their role for this action",
    Throttled: "the account's request limit is reached: wait, or ask AWS to raise it",
    NoCapacity: MORE_TYPES,
}

_OWN_HINTS = {
    # The account's first spot instance makes the role, if whoever asks for it may.
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": "once for the account: "
    "aws iam create-service-linked-role --aws-service-name spot.amazonaws.com",
}


@contextmanager
def calling(operation: str, region: str, resource: str | None = None) -> Iterator[None]:
    """Around one call: whatever botocore raises inside leaves as an AwsError.

    `operation` is the API's name, such as RunInstances; `resource` what it is about. What is taken
    out of the answer is taken inside too: it may lack it.
    """
    try:
        yield
    except ClientError as error:
        raise _from_client_error(error, operation, region, resource) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise Denied(
            operation=operation,
            code="NoCredentials",
            message=str(error),
            region=region,
            resource=resource,
            hint="log in (aws sso login, AWS_PROFILE, a role), or bake with --target local",
        ) from error
    except (HTTPClientError, EndpointConnectionError) as error:
        raise AwsError(
            operation=operation,
            code="NoConnection",
            message=str(error),
            region=region,
            resource=resource,
            answered=False,
            hint=f"is there a region {region}, and is its endpoint reachable from here?",
        ) from error
    except (StrangeAnswer, ResponseParserError, KeyError, IndexError) as error:
        # It may have been carried out all the same, by who answered or behind it.
        raise AwsError(
            operation=operation,
            code=StrangeAnswer.__name__,
            message=_strangeness(error),
            region=region,
            resource=resource,
            answered=False,
            hint="does something stand in the way, such as a proxy or a login page?",
        ) from error
    except BotoCoreError as error:
        raise AwsError(
            operation=operation,
            code=type(error).__name__,
            message=str(error),
            region=region,
            resource=resource,
            answered=False,
        ) from error


def _strangeness(error: Exception) -> str:
    match error:
        case StrangeAnswer():
            return str(error)
        case KeyError() | IndexError():
            return f"the answer lacks what was asked for: {error}"
        case _:
            return "the answer can't be read: " + str(error).partition("\n")[0]


def _from_client_error(
    error: ClientError, operation: str, region: str, resource: str | None
) -> AwsError:
    body = error.response.get("Error", {})
    code = body.get("Code", "Unknown")
    kind = _BY_CODE.get(code, NotFound if code.endswith(".NotFound") else AwsError)
    message = body.get("Message", str(error))
    metadata = error.response.get("ResponseMetadata", {})
    # "Insufficient capacity" comes as a server's error, and is an answer all the same.
    answered = kind is NoCapacity or metadata.get("HTTPStatusCode", 500) < 500
    return kind(
        operation=operation,
        code=code,
        message=message,
        region=region,
        request_id=metadata.get("RequestId"),
        resource=resource,
        answered=answered,
        hint=_permission(code, operation, message)
        or _OWN_HINTS.get(code)
        or _HINTS.get(kind)
        or _quota(code),
    )


def _quota(code: str) -> str | None:
    """VolumeLimitExceeded, SecurityGroupLimitExceeded and their like: nothing of ours mends it."""
    if code == "ParameterMaxVersionLimitExceeded":  # PutParameter: its oldest version has a label
        return "take the label off its oldest version: aws ssm unlabel-parameter-version"
    if code.endswith("LimitExceeded"):
        return "a quota of the account is reached: remove what nobody needs, or ask AWS to raise it"
    return None


def _permission(code: str, operation: str, message: str) -> str | None:
    """Which permission is missing, where the code says that one is. Of the message only the name of
    an action is repeated: it may hold what nobody may see."""
    action = _missing(code, operation, message)
    if action is None:
        return None
    if operation in _OF_PROMOTION:
        return f"the role needs {action}; `amibuild policy promote` prints all that a move needs"
    if operation == "DescribeImageReferences":
        return f"the role needs {action}; `amibuild policy prune` prints all that prune needs"
    move = ", `amibuild policy promote` all that a move does" if operation in _OF_BOTH else ""
    prune = ", `amibuild policy prune` all that prune does" if operation in _OF_REMOVAL else ""
    return (
        f"the role needs {action}; `amibuild policy bake` prints all that a bake needs, "
        f"`amibuild policy reap` all that reap does{move or prune}"
    )


def _missing(code: str, operation: str, message: str) -> str | None:
    """The action as the answer names it: a call may need others besides its own. Else the call's
    own, whose service the code tells: each has its own word, EC2 the first, Systems Manager the
    second, S3 and IAM the third."""
    service = {"UnauthorizedOperation": "ec2", "AccessDeniedException": "ssm"}.get(code)
    if operation == "GetSecretValue" and service is not None:
        service = "secretsmanager"
    if code in {"AccessDenied", "403"}:
        service = "s3" if operation in _OF_S3 else "iam"
    if service is None:
        return None
    if named := _MISSING.search(message):
        return named[1]
    if _BY_A_KEY.search(message):
        return "kms:Decrypt"
    return f"{service}:{_ACTIONS.get(operation, operation)}"
