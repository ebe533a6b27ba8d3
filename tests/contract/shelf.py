"""Images of a recipe that have no part of each other, so that each can go by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from amibuild.journal import Subscriber
from amibuild.prune import PrunePlan, PruneReport, carry_out, plan_prune
from amibuild.retention import Rule
from tests.contract.conftest import Aws
from tests.contract.imaged import completed, tagged
from tests.contract.promoted import Stage
from tests.contract.swift import swift

# By then everything that a test makes is old.
LATER = timedelta(days=40)
RULE = Rule(keep=5, days=30)


class Shelf(Stage):
    """Images of a recipe, each of a snapshot of its own."""

    def __init__(self, aws: Aws, folder: Path, base: str) -> None:
        super().__init__(aws, folder)
        self._base = base

    def image(self, version: str, **tags: str) -> str:
        ours = {"amibuild:image": self.name, "amibuild:version": version}
        copy = self.aws.ec2.copy_snapshot(
            SourceSnapshotId=self._base,
            SourceRegion=self.aws.region,
            TagSpecifications=tagged("snapshot", **ours),  # type: ignore[arg-type]
        )["SnapshotId"]
        self._snapshot = completed(self.aws, copy)
        return super().image(version, **tags)

    def images(self, number: int) -> list[str]:
        """Oldest first."""
        first = datetime(2026, 9, 1, tzinfo=UTC)
        return [self.image(f"{first + timedelta(days=n):%Y.%m.%d}.1") for n in range(number)]

    def plan(self, rule: Rule = RULE) -> PrunePlan:
        now = datetime.now(UTC) + LATER
        return plan_prune(self.aws.cloud, self.recipe, rule, now=now)

    def carry_out(self, plan: PrunePlan, *subscribers: Subscriber) -> PruneReport:
        with swift() as clock:
            return carry_out(
                self.aws.cloud,
                self.recipe,
                self.path,
                plan,
                target="local",
                subscribers=subscribers,
                clock=clock,
            )

    def there(self) -> set[str]:
        mine = [{"Name": "tag:amibuild:image", "Values": [self.name]}]
        found = self.aws.ec2.describe_images(Filters=mine, IncludeDisabled=True)["Images"]  # type: ignore[arg-type]
        return {one["ImageId"] for one in found}

    def snapshots(self) -> set[str]:
        mine = [{"Name": "tag:amibuild:image", "Values": [self.name]}]
        found = self.aws.ec2.describe_snapshots(Filters=mine)["Snapshots"]  # type: ignore[arg-type]
        return {one["SnapshotId"] for one in found}
