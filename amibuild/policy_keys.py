"""The part of a bake's policy that is about secrets, and about the keys of secrets and of disks.

Pure. IAM takes the ARN of a key and nothing else for one: an alias is a matter of a condition (KMS
developer guide, "Specifying KMS keys in IAM policy statements").
"""

from __future__ import annotations

from collections.abc import Iterator

from amibuild.permission import Statement, Wanted, literal

# What EC2 does with the key on the caller's behalf (EBS user guide, required permissions).
OF_DISKS = (
    "kms:CreateGrant",
    "kms:Decrypt",
    "kms:DescribeKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncrypt*",
)
OF_SECRETS = ("kms:Decrypt",)
ALIAS = "alias/"


def keys_of_secrets(wanted: Wanted) -> Iterator[Statement]:
    """Under whatever key they are: the recipe does not say it. What the role may have decrypted is
    bound by the context that each service gives to KMS, and each has one of its own (Systems
    Manager user guide, "AWS KMS encryption for SecureString parameters"; Secrets Manager user
    guide, "Secret encryption and decryption")."""
    for sid, context, resources in (
        ("DecryptParameters", "PARAMETER_ARN", secure_parameters(wanted)),
        ("DecryptSecrets", "SecretARN", named_secrets(wanted)),
    ):
        if resources:
            only = resources[0] if len(resources) == 1 else list(resources)
            bound = {"StringLike": {f"kms:EncryptionContext:{context}": only}}
            yield Statement(sid, OF_SECRETS, (_key(wanted, "*"),), bound)


def key_of_disks(wanted: Wanted) -> Iterator[Statement]:
    key = wanted.recipe.aws.kms_key
    if key is None:
        return
    host = wanted.host(f"ec2.{wanted.recipe.aws.region}")
    via = {"StringEquals": {"kms:ViaService": host}}
    whose, _, name = key.rpartition(":")
    if name.startswith(ALIAS):
        resource = f"{literal(whose)}:key/*" if whose else _key(wanted, "*")
        # A key may have several.
        named = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": literal(name)}}
        yield Statement("UseTheKey", OF_DISKS, (resource,), {**via, **named})
    else:
        resource = literal(key) if whose else _key(wanted, literal(key))
        yield Statement("UseTheKey", OF_DISKS, (resource,), via)


def _key(wanted: Wanted, id_: str) -> str:
    return wanted.arn("kms", f"key/{id_}", region=wanted.recipe.aws.region, account="*")


def secure_parameters(wanted: Wanted) -> tuple[str, ...]:
    names = [one.ssm for one in wanted.recipe.secrets.values() if one.ssm is not None]
    return tuple(dict.fromkeys(_parameter(wanted, name) for name in names))


def named_secrets(wanted: Wanted) -> tuple[str, ...]:
    sources = wanted.recipe.secrets.values()
    names = [one.secretsmanager for one in sources if one.secretsmanager is not None]
    return tuple(dict.fromkeys(_secret(wanted, name) for name in names))


def _parameter(wanted: Wanted, name: str) -> str:
    """Without the version or label that a name may end in."""
    if name.startswith("arn:"):
        return literal(":".join(name.split(":")[:6]))
    path = literal(name.partition(":")[0].lstrip("/"))
    return wanted.arn("ssm", f"parameter/{path}", region=wanted.recipe.aws.region, account="*")


def _secret(wanted: Wanted, name: str) -> str:
    """An ARN ends in six characters that nobody chooses, and may be given without them."""
    if name.startswith("arn:"):
        return f"{literal(name)}*"
    region = wanted.recipe.aws.region
    path = f"secret:{literal(name)}-??????"
    return wanted.arn("secretsmanager", path, region=region, account="*")
