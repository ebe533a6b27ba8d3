"""The overlay's backends and responses, whole, and how they get into moto's place."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import moto.ec2.models
import moto.ec2.urls
import moto.ssm.models
import moto.ssm.urls
from moto.core.base_backend import BackendDict
from moto.ec2.models import elastic_block_store

from amibuild.local.overlay.attributes import AttributeResponses
from amibuild.local.overlay.commands import Command
from amibuild.local.overlay.copies import CopyBooks, CopyResponses
from amibuild.local.overlay.damage import DamageBooks
from amibuild.local.overlay.describing import DescribeResponses
from amibuild.local.overlay.desk import Desk
from amibuild.local.overlay.groups import GroupBooks, GroupResponses
from amibuild.local.overlay.images import ImageBooks, ImageResponses
from amibuild.local.overlay.instances import InstanceResponses
from amibuild.local.overlay.lifecycle import LifecycleBooks, LifecycleResponses
from amibuild.local.overlay.lives import InstanceBooks
from amibuild.local.overlay.networks import NetworkResponses
from amibuild.local.overlay.parameters import ParameterBooks, ParameterResponses
from amibuild.local.overlay.references import ReferenceResponses
from amibuild.local.overlay.registering import RegisterResponses
from amibuild.local.overlay.requests import EveryRequest, EverySsmRequest
from amibuild.local.overlay.sharing import SharingResponses
from amibuild.local.overlay.snapshots import SnapshotBooks, SnapshotResponses
from amibuild.local.overlay.spot import SpotRequest, SpotResponses
from amibuild.local.overlay.ssm import CommandBooks, CommandResponses
from amibuild.local.overlay.tags import TagBooks
from amibuild.local.overlay.templates import TemplateResponses
from amibuild.local.overlay.unseen import Reads
from amibuild.local.overlay.volumes import LocalVolume, VolumeBooks, VolumeResponses


class LocalEc2(
    InstanceBooks,
    ImageBooks,
    CopyBooks,
    LifecycleBooks,
    SnapshotBooks,
    VolumeBooks,
    GroupBooks,
    TagBooks,
    DamageBooks,
):
    # moto finds a backend's URLs by its module's name.
    __module__ = "moto.ec2.models"

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        # What client tokens made: operation and token -> the request's fingerprint and its answer.
        self.done: dict[tuple[str, str], tuple[str, Any]] = {}
        self.reads = Reads()
        self.spot: dict[str, SpotRequest] = {}
        # moto would make a key in its KMS at the first encrypted volume: 0.3 s for a name.
        self.default_kms_key_id = f"arn:aws:kms:{region_name}:{account_id}:key/aws-ebs"
        store = Desk.current.store
        for snapshot in store.snapshots():
            if (snapshot.region or region_name) == region_name:
                self.load_snapshot(snapshot)
        images = [i for i in store.images() if i.facts.get("region", region_name) == region_name]
        self.load_missing_snapshots(images)
        for image in images:
            self.load_image(image)
        self.mark_damage()


class LocalSsm(CommandBooks, ParameterBooks):
    __module__ = "moto.ssm.models"

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.commands: dict[str, Command] = {}
        self.reads = Reads()
        self.registered: dict[str, datetime] = {}
        for parameter in Desk.current.store.parameters():
            self.load_parameter(parameter)


class LocalEc2Response(
    EveryRequest,
    InstanceResponses,
    ImageResponses,
    RegisterResponses,
    CopyResponses,
    LifecycleResponses,
    SharingResponses,
    DescribeResponses,
    ReferenceResponses,
    SnapshotResponses,
    VolumeResponses,
    AttributeResponses,
    GroupResponses,
    NetworkResponses,
    SpotResponses,
    TemplateResponses,
):
    pass


class LocalSsmResponse(EverySsmRequest, CommandResponses, ParameterResponses):
    pass


def take_over(desk: Desk) -> None:
    """From now on moto's EC2 and SSM are ours, empty but for what the desk's store holds.

    One endpoint a process: moto has one set of books.
    """
    Desk.current = desk
    BackendDict.reset()
    moto.ec2.models.ec2_backends.backend = LocalEc2
    moto.ssm.models.ssm_backends.backend = LocalSsm
    elastic_block_store.Volume = LocalVolume
    _serve(moto.ec2.urls, "{0}/", LocalEc2Response)
    _serve(moto.ssm.urls, "{0}/$", LocalSsmResponse)


def _serve(urls: Any, path: str, response: Any) -> None:
    urls.url_paths[path] = response.dispatch
