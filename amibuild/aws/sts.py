"""Whose calls these are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amibuild.aws.errors import calling

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient


class Sts:
    def __init__(self, client: STSClient, region: str) -> None:
        self._client = client
        self._region = region

    def account(self) -> str:
        """The account's id. GetCallerIdentity, which needs no permission."""
        with calling("GetCallerIdentity", self._region):
            return self._client.get_caller_identity()["Account"]
