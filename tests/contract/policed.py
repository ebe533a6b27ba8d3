"""A role's policy in force: what it does not allow is refused, and is not carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError

from amibuild.aws.partition import partition_of
from amibuild.aws.session import Cloud
from amibuild.permission import Wanted
from amibuild.policy import Flow, document
from amibuild.project import Project
from tests.contract.conftest import Aws
from tests.iam import Asked, allows, asked_by

REFUSED = "refused_here"


def policy(project: Project, flow: Flow) -> dict[str, Any]:
    region = project.recipe.aws.region
    return document(Wanted(project.recipe, project.steps, partition_of(region)), flow)


@dataclass
class Guard:
    """Between a cloud and its endpoint. The tags of things are those of the moment of the call."""

    aws: Aws
    document: Mapping[str, Any]
    asked: list[Asked] = field(default_factory=list)
    refused: list[Asked] = field(default_factory=list)

    def over(self, cloud: Cloud) -> Cloud:
        """Before its clients are made."""
        events = cloud._session.events
        events.register("provide-client-params", self._judge)
        events.register("before-call", self._refuse)  # type: ignore[arg-type]  # it may answer
        return cloud

    def _judge(
        self, *, params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any
    ) -> None:
        service = model.service_model.service_name
        for asked in asked_by(service, model.name, params, self._tags):
            self.asked.append(asked)
            if not allows(self.document, asked) and not self._is_gone(asked.resource):
                self.refused.append(asked)
                context[REFUSED] = asked

    def _refuse(self, *, model: Any, context: dict[str, Any], **_: Any) -> object:
        if REFUSED not in context:
            return None
        asked = context[REFUSED]
        message = f"not authorized to perform: {asked.action} on resource: {asked.resource}"
        service = model.service_model.service_name
        code = {"ec2": "UnauthorizedOperation", "ssm": "AccessDeniedException"}.get(service, "403")
        told = {"Error": {"Code": code, "Message": message}}
        status = {"ResponseMetadata": {"HTTPStatusCode": 403}}
        answer = AWSResponse(self.aws.service.url, 403, HTTPHeaders(), None)
        return answer, {**told, **status}

    def _is_gone(self, arn: str) -> bool:
        """What has no tags any longer since it is not there: the endpoint says so."""
        id_ = arn.rpartition("/")[2]
        looks: dict[str, Callable[[], object]] = {
            "snap": lambda: self.aws.ec2.describe_snapshots(SnapshotIds=[id_])["Snapshots"],
            "vol": lambda: self.aws.ec2.describe_volumes(VolumeIds=[id_])["Volumes"],
            "sg": lambda: self.aws.ec2.describe_security_groups(GroupIds=[id_])["SecurityGroups"],
        }
        try:
            return not looks.get(id_.partition("-")[0], lambda: True)()
        except ClientError:
            return True

    def _tags(self, id_: str) -> dict[str, str]:
        found = self.aws.ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [id_]}])
        return {one["Key"]: one["Value"] for one in found["Tags"]}


def guarded(aws: Aws, project: Project, flow: Flow = Flow.BAKE) -> tuple[Cloud, Guard]:
    """The endpoint as it is to somebody who has the flow's policy and no other."""
    guard = Guard(aws, policy(project, flow))
    return guard.over(Aws(aws.service, aws.session).cloud), guard


def actions(asked: Sequence[Asked]) -> set[str]:
    return {one.action for one in asked}
