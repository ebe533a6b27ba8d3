"""Opens the cloud: one set of clients for one region, at AWS or at another endpoint.

Which endpoint it is changes nothing above this file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader

from amibuild import __version__
from amibuild.aws import shortage
from amibuild.aws.answers import refuse_strange
from amibuild.aws.calls import Calls
from amibuild.aws.ec2 import Ec2
from amibuild.aws.iam import Iam
from amibuild.aws.images import Images
from amibuild.aws.patience import Patience
from amibuild.aws.s3 import S3
from amibuild.aws.secrets_manager import SecretsManager
from amibuild.aws.ssm import Ssm
from amibuild.aws.sts import Sts
from amibuild.errors import AmibuildError, HostError, UsageError
from amibuild.names import EndpointAccess, Region
from amibuild.recipe.model import Aws

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_sts import STSClient

log = logging.getLogger(__name__)

# Adaptive slows down by itself when the account is throttled; ten tries are about a minute. What
# answered before and can't be reached is tried for longer: patience.py.
RETRIES = {"mode": "adaptive", "total_max_attempts": 10}
AT_ONCE = Config(
    connect_timeout=3,
    read_timeout=5,
    retries={"mode": "standard", "total_max_attempts": 1},
)


class EndpointGone(BotoCoreError):
    """Not one of the errors that botocore tries again after: a killed endpoint would cost a bake
    a quarter of a minute with each call, 75 s in all."""

    fmt = "the endpoint {url} has ended"


def _without_profile() -> botocore.session.Session:
    """AWS_PROFILE is for AWS: another endpoint must not fail for a profile that is gone."""
    session = botocore.session.Session(session_vars={"profile": (None, None, None, None)})
    session.register_component("data_loader", _models())
    return session


@cache
def _models() -> Loader:
    """What botocore knows of the services' calls. Reading EC2's takes 0.2 s, once a process."""
    return Loader()


def connect(settings: Aws, *, endpoint: EndpointAccess | None) -> Cloud:
    """The recipe's region, at `endpoint` or, without one, where [aws] says."""
    return Cloud(
        region=settings.region,
        profile=settings.profile,
        endpoints=settings.endpoints,
        access=endpoint,
    )


class Cloud:
    """The facades of one region. Clients are made on first use: each costs tens of milliseconds."""

    def __init__(
        self,
        *,
        region: str,
        profile: str | None = None,
        endpoints: Mapping[str, str] | None = None,
        access: EndpointAccess | None = None,
        session: boto3.Session | None = None,
        patience: Patience | None = None,
    ) -> None:
        """`endpoints` are URLs by service name; with `access` every service is there instead.

        `session` is that of another region's Cloud, with its `patience`: a new one costs 0.2 s and
        a login of its own.
        """
        self.region = Region(region)
        self._endpoints = dict(endpoints or {})
        self._access = access
        self._patience = patience or Patience()
        self._session = session or self._new_session(profile)

    def _new_session(self, profile: str | None) -> boto3.Session:
        access = self._access
        try:
            session = boto3.Session(
                botocore_session=_without_profile() if access else None,
                region_name=self.region,
                profile_name=None if access else profile,
                aws_access_key_id=access.access_key_id if access else None,
                aws_secret_access_key=access.secret_access_key if access else None,
            )
        except BotoCoreError as error:
            raise UsageError(
                str(error), hint="aws.profile in the recipe, or AWS_PROFILE"
            ) from error
        # Before each try of each call, of every client that comes from this session.
        session.events.register("before-send", self._refuse_when_gone)
        # With the stars it comes before botocore's own look at S3's answers, which would make an
        # error of the server of a page, and try again ten times.
        session.events.register("before-parse.*.*", refuse_strange)
        # Without stars it comes after botocore's own, whose answer counts when it has one.
        session.events.register("needs-retry", self._patience.hear)  # type: ignore[arg-type]
        session.events.register(shortage.EVENT, shortage.tell_at_once)
        Calls().listen(session.events)
        return session

    def in_region(self, region: str) -> Cloud:
        """The same account at the same place, in another region."""
        return Cloud(
            region=region,
            endpoints=self._endpoints,
            access=self._access,
            session=self._session,
            patience=self._patience,
        )

    def secrets(self) -> dict[str, str]:
        """By name, what its calls are signed with."""
        found = self._session.get_credentials()
        if found is None:
            return {}
        try:
            keys = found.get_frozen_credentials()
        except BotoCoreError as error:
            raise HostError(
                f"the credentials can't be renewed: {error}",
                hint="log in again, as by aws sso login",
            ) from error
        named = {"the secret access key": keys.secret_key, "the session token": keys.token}
        return {f"{name} of who baked": value for name, value in named.items() if value}

    @cached_property
    def account(self) -> str:
        """The account of these calls and, where several places have the same one, which of them.

        "" where nobody tells: a network may have no way to STS, which nothing else here needs.
        """
        if self._endpoints and "sts" not in self._endpoints:
            return ""
        try:
            client: STSClient = self._client("sts", AT_ONCE)
            account = Sts(client, self.region).account()
        except AmibuildError as error:
            log.debug("whose account this is is not known", exc_info=error)
            return ""
        return f"{account} {self._access.place}".strip() if self._access else account

    @cached_property
    def ec2(self) -> Ec2:
        return Ec2(self._ec2, self.region)

    @cached_property
    def ec2_at_once(self) -> Ec2:
        """For what must not hold up a clean-up: a call that is not answered in seconds is none."""
        client: EC2Client = self._client("ec2", AT_ONCE)
        client.meta.events.unregister("needs-retry", self._patience.hear)  # type: ignore[arg-type]
        return Ec2(client, self.region)

    @cached_property
    def images(self) -> Images:
        return Images(self._ec2, self.region)

    @cached_property
    def ssm(self) -> Ssm:
        client: SSMClient = self._client("ssm")
        return Ssm(client, self.region)

    @cached_property
    def s3(self) -> S3:
        client: S3Client = self._client("s3", Config(signature_version="s3v4"))
        return S3(client, self.region)

    @cached_property
    def secrets_manager(self) -> SecretsManager:
        client: SecretsManagerClient = self._client("secretsmanager")
        return SecretsManager(client, self.region)

    @cached_property
    def iam(self) -> Iam:
        client: IAMClient = self._client("iam")
        return Iam(client, self.region)

    @cached_property
    def _ec2(self) -> EC2Client:
        client: EC2Client = self._client("ec2")
        return client

    def _client(self, service: Any, more: Config | None = None) -> Any:
        """Raises: HostError, as for settings of this host that botocore can't work with."""
        try:
            return self._session.client(
                service,
                region_name=self.region,
                endpoint_url=self._endpoint(service),
                config=self._config().merge(more or Config()),
            )
        except BotoCoreError as error:
            raise HostError(f"{service} in {self.region} can't be called: {error}") from error

    @property
    def url(self) -> str:
        """Where EC2 is."""
        return str(self._ec2.meta.endpoint_url)

    def cli(self, service: str) -> str:
        """What a call of the AWS CLI needs to reach the same place."""
        endpoint = self._endpoint(service)
        at = f" --endpoint-url {endpoint}" if endpoint else ""
        return f"--region {self.region}{at}"

    def _endpoint(self, service: str) -> str | None:
        return self._access.url if self._access else self._endpoints.get(service)

    def _refuse_when_gone(self, **_: object) -> None:
        if self._access is not None and self._access.is_gone():
            raise EndpointGone(url=self._access.url)

    def _config(self) -> Config:
        path_style = {"addressing_style": "path"} if self._endpoint("s3") else {}
        return Config(
            # An endpoint of one's own is near: no proxy of the environment leads there.
            proxies={} if self._access else None,
            connect_timeout=10,
            read_timeout=60,
            retries=RETRIES,  # type: ignore[arg-type]  # the stubs want literals
            s3=path_style or None,  # type: ignore[arg-type]
            user_agent_extra=f"amibuild/{__version__}",
        )
