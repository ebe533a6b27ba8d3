"""boto3 against the local endpoint with driver none: what EC2, SSM and S3 answer, pinned.

Each test says where the expected answer comes from. The endpoint runs in this process, one after
the other, since a start costs 30 ms then; tests/unit/test_local_endpoint.py has it as a process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from amibuild.aws.session import Cloud
from amibuild.local import debian
from amibuild.local.faults import Fault
from amibuild.local.keys import AccessKey
from amibuild.local.machines.none import Latencies, NoMachine
from amibuild.local.machines.script import CommandScript, always_succeeds
from amibuild.local.service import Options, Service
from amibuild.names import EndpointAccess
from amibuild.wait import Look, SystemClock, until
from tests.contract.place import Place, new_place

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_ssm import SSMClient

REGION = "us-east-1"
KEY = AccessKey("AKIAIOSFODNN7EXAMPLE", "x")
TIMEOUT_S = 10.0


@pytest.fixture(scope="session")
def session() -> boto3.Session:
    """Shared: botocore reads each service's model once per session, in 0.2 s."""
    return boto3.Session(
        aws_access_key_id=KEY.id, aws_secret_access_key=KEY.secret, region_name=REGION
    )


class Impatient(SystemClock):
    """Looks often: what is waited for here takes milliseconds."""

    def sleep(self, seconds: float) -> None:
        super().sleep(min(seconds, 0.02))


@dataclass
class Aws:
    """One endpoint and its clients, with the steps that most tests begin with."""

    service: Service
    session: boto3.Session
    region: str = REGION
    timeout_s: float = TIMEOUT_S

    @cached_property
    def ec2(self) -> EC2Client:
        client: EC2Client = self._client("ec2")
        return client

    @cached_property
    def ssm(self) -> SSMClient:
        client: SSMClient = self._client("ssm")
        return client

    @cached_property
    def s3(self) -> S3Client:
        client: S3Client = self._client("s3")
        return client

    @cached_property
    def secrets_manager(self) -> SecretsManagerClient:
        client: SecretsManagerClient = self._client("secretsmanager")
        return client

    @cached_property
    def iam(self) -> IAMClient:
        client: IAMClient = self._client("iam")
        return client

    @cached_property
    def cloud(self) -> Cloud:
        """The endpoint as the product opens it."""
        key = self.service.options.key
        return Cloud(
            region=self.region, access=EndpointAccess(self.service.url, key.id, key.secret)
        )

    def _client(self, name: Any) -> Any:
        return self.session.client(
            name,
            endpoint_url=self.service.url,
            region_name=self.region,
            config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
        )

    @property
    def base(self) -> str:
        return self.ssm.get_parameter(Name=debian.PARAMETER)["Parameter"]["Value"]

    def launch(self, **asked: Any) -> str:
        """A new instance, not running yet."""
        request = {"ImageId": self.base, "InstanceType": "c7i.large", "MinCount": 1, "MaxCount": 1}
        return self.ec2.run_instances(**{**request, **asked})["Instances"][0]["InstanceId"]

    def running(self, **asked: Any) -> str:
        """A new instance that takes commands."""
        instance = self.launch(**asked)
        self.until_state(instance, "running")
        self.until(lambda: self.ping(instance), "Online")
        return instance

    def stopped(self, **asked: Any) -> str:
        instance = self.running(**asked)
        self.ec2.stop_instances(InstanceIds=[instance])
        self.until_state(instance, "stopped")
        return instance

    def image(self, name: str = "an-image", **asked: Any) -> str:
        """A captured image, available."""
        request = {"InstanceId": self.stopped(), "Name": name, **asked}
        image = self.ec2.create_image(**request)["ImageId"]
        self.until(lambda: self.image_state(image), "available")
        return image

    def instance(self, instance: str) -> dict[str, Any]:
        found = self.ec2.describe_instances(InstanceIds=[instance])
        return dict(found["Reservations"][0]["Instances"][0])

    def state(self, instance: str) -> str:
        return str(self.instance(instance)["State"]["Name"])

    def ping(self, instance: str) -> str:
        found = self.ssm.describe_instance_information(
            Filters=[{"Key": "InstanceIds", "Values": [instance]}]
        )["InstanceInformationList"]
        return found[0]["PingStatus"] if found else "not registered"

    def image_state(self, image: str) -> str:
        return self.ec2.describe_images(ImageIds=[image])["Images"][0]["State"]

    def machine(self, instance: str) -> NoMachine:
        return self.service.scripted.machines[instance]

    def until_state(self, instance: str, state: str) -> None:
        self.until(lambda: self.state(instance), state)

    def until(self, see: Callable[[], str], wanted: str) -> None:
        def look() -> Look[bool]:
            seen = see()
            return Look(seen, True if seen == wanted else None)

        until(look, what=wanted, timeout_s=self.timeout_s, clock=Impatient())


class Start(Protocol):
    def __call__(
        self,
        *faults: str,
        latency: str = "",
        script: CommandScript = always_succeeds,
        call_log: Path | None = None,
    ) -> Aws: ...


@pytest.fixture
def start(tmp_path: Path, session: boto3.Session) -> Iterator[Start]:
    """Starts an endpoint over this test's data folder; a second call begins it anew."""
    running: list[Service] = []

    def begin(
        *faults: str,
        latency: str = "",
        script: CommandScript = always_succeeds,
        call_log: Path | None = None,
    ) -> Aws:
        while running:
            running.pop().close()
        options = Options(
            tmp_path / "data",
            machine="none",
            latencies=Latencies.parse(latency),
            script=script,
            faults=tuple(map(Fault.parse, faults)),
            call_log=call_log,
            key=KEY,
        )
        running.append(Service(options))
        return Aws(running[-1], session)

    yield begin
    while running:
        running.pop().close()


@pytest.fixture
def aws(start: Start) -> Aws:
    return start()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    """Nothing runs yet; what `local up` leaves is ended afterwards."""
    place = new_place(tmp_path)
    yield place
    place.run("local", "down")


class Refuses(Protocol):
    def __call__(self, code: str, call: Callable[..., Any], /, **asked: Any) -> str: ...


@pytest.fixture
def refuses() -> Refuses:
    """Makes a call that must be refused with this code; the message."""

    def check(code: str, call: Callable[..., Any], /, **asked: Any) -> str:
        with pytest.raises(ClientError) as refused:
            call(**asked)
        assert refused.value.response["Error"]["Code"] == code
        return refused.value.response["Error"]["Message"]

    return check
