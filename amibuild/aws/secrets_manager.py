"""Secrets Manager: the value of one secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amibuild.aws.errors import calling

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


class SecretsManager:
    def __init__(self, client: SecretsManagerClient, region: str) -> None:
        self._client = client
        self._region = region

    def value(self, name: str) -> str | None:
        """GetSecretValue of the current version; None for one that is binary. Raises: NotFound."""
        with calling("GetSecretValue", self._region, name):
            return self._client.get_secret_value(SecretId=name).get("SecretString")
