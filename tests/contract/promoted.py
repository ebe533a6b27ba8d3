"""Images that can be promoted without a bake, and the channels of a recipe that names them."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from amibuild.aws.session import Cloud
from amibuild.channels import Entry, read_channels, read_history
from amibuild.journal import Shown, Subscriber
from amibuild.names import EndpointAccess
from amibuild.promote import Allowed, MoveResult, carry_out, plan_promotion, plan_rollback
from amibuild.recipe.load import load_recipe
from amibuild.recipe.model import Recipe
from amibuild.wait import Clock
from tests.contract.builder import die_at
from tests.contract.conftest import KEY, REGION, Aws
from tests.contract.imaged import snapshot_of, tagged

VERIFIED = {"amibuild:verified": "passed"}


class Stage:
    """A folder with a recipe, an endpoint, and what a test does with channels there."""

    def __init__(self, aws: Aws, folder: Path, more: str = "", snapshot: str = "") -> None:
        """The recipe is named as the folder is; `snapshot` is what its images are made of."""
        self.aws = aws
        self.name = folder.name
        self.path = folder / "amibuild.toml"
        folder.mkdir(parents=True, exist_ok=True)
        self.path.write_text(f'[image]\nname = "{self.name}"\n{more}')
        self.recipe: Recipe = load_recipe(self.path)
        self.told: list[Shown] = []
        self._snapshot = snapshot

    def image(self, version: str, **tags: str) -> str:
        """An available image of the recipe, verified unless the tags say otherwise."""
        self._snapshot = self._snapshot or snapshot_of(self.aws, self.aws.image())
        ours = {"amibuild:image": self.name, "amibuild:version": version, **VERIFIED, **tags}
        kept = {key: value for key, value in ours.items() if value}
        return self.aws.ec2.register_image(
            Name=f"{self.name}-{version}",
            RootDeviceName="/dev/xvda",
            Architecture="x86_64",
            VirtualizationType="hvm",
            BlockDeviceMappings=[
                {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": self._snapshot}}
            ],
            TagSpecifications=tagged("image", **kept),  # type: ignore[arg-type]
        )["ImageId"]

    def parameter(self, channel: str = "nightly") -> str:
        return f"/amibuild/{self.name}/{channel}/ami-id"

    def history(self, channel: str = "nightly") -> tuple[Entry, ...]:
        return read_history(self.aws.cloud, self.parameter(channel))

    def cloud(self) -> Cloud:
        """Clients of one's own, as each process has."""
        key = self.aws.service.options.key
        access = EndpointAccess(self.aws.service.url, key.id, key.secret)
        return Cloud(region=self.aws.region, access=access)

    def promote(
        self,
        reference: str,
        to: str = "nightly",
        allowed: Allowed | None = None,
        *,
        reason: str = "",
        clock: Clock | None = None,
        subscribers: tuple[Subscriber, ...] = (),
    ) -> MoveResult:
        cloud = self.aws.cloud
        move = plan_promotion(cloud, self.recipe, reference, to, allowed or Allowed())
        return carry_out(
            cloud,
            self.path,
            move,
            target="local",
            reason=reason,
            subscribers=(self.told.append, *subscribers),
            clock=clock,
        )

    def roll_back(
        self, channel: str = "nightly", to: str | None = None, *, clock: Clock | None = None
    ) -> MoveResult:
        cloud = self.aws.cloud
        move = plan_rollback(cloud, self.recipe, channel, to)
        return carry_out(
            cloud,
            self.path,
            move,
            target="local",
            reason="",
            subscribers=(self.told.append,),
            clock=clock,
        )

    def points_at(self, channel: str = "nightly") -> str | None:
        return read_channels(self.aws.cloud, self.recipe)[channel].image_id

    def put(self, image: str, channel: str = "nightly") -> None:
        """As somebody does who does not use amibuild."""
        self.aws.ssm.put_parameter(
            Name=self.parameter(channel),
            Value=image,
            Type="String",
            DataType="aws:ec2:image",
            Overwrite=True,
        )
        self.aws.until(lambda: str(self.points_at(channel)), image)

    def deprecate(self, image: str) -> None:
        """As of now: EC2 rounds to the minute."""
        now = datetime.now(UTC) - timedelta(seconds=30)
        self.aws.ec2.enable_image_deprecation(ImageId=image, DeprecateAt=now)


def killed_at(moment: str, url: str, path: Path, reference: str, to: str) -> int | None:
    """How a promotion's process ended that kills itself at that moment of its journal."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.contract.warm"])
    process = context.Process(target=_promote, args=(moment, url, path, reference, to), daemon=True)
    process.start()
    process.join()
    return process.exitcode


def _promote(moment: str, url: str, path: Path, reference: str, to: str) -> None:
    cloud = Cloud(region=REGION, access=EndpointAccess(url, KEY.id, KEY.secret))
    move = plan_promotion(cloud, load_recipe(path), reference, to, Allowed())
    carry_out(cloud, path, move, target="local", reason="", subscribers=(die_at(moment),))
