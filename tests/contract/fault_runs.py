"""The runs of the fault matrix: their accounts, their recipes, and how each of them is played.
fault_cells.py has the list of them, fault_matrix.py what is then looked at."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import boto3

from amibuild.bake import BakeResult, bake
from amibuild.errors import AmibuildError, Leftover
from amibuild.journal import (
    KEPT_FOR_LATER,
    BakeEnded,
    Created,
    Remains,
    Shown,
    StepStarted,
    Subscriber,
)
from amibuild.local.faults import Fault
from amibuild.local.service import Options, Service
from amibuild.project import Project, load_project
from amibuild.reap import reap
from amibuild.reaped import ReapReport
from amibuild.scope import OnError
from tests.contract.account import made_twice
from tests.contract.builder import Answers, announce, changed
from tests.contract.conftest import KEY, Aws
from tests.contract.fault_cells import NOTHING_GOES, Run
from tests.contract.swift import SwiftClock
from tests.contract.test_artifacts import SERVICE
from tests.contract.test_secrets import STEP, certificate, closed_for_the_reader

if TYPE_CHECKING:
    from amibuild.local.machines.script import Outcome as Said

BUCKET, PROFILE, ROLE = "a-bucket-of-ours", "a-profile", "a-role"
POLICY = """{"Version": "2012-10-17", "Statement":
[{"Effect": "Allow", "Action": "ssm:*", "Resource": "*"}]}"""
KMS_KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd"
# One step: a second one brings no other calls.
RECIPE = '[image]\nname = "game-host"\n[provision]\nsteps = ["os"]\nservices = []\n'
# Of boto3's transfers: what is larger goes in parts.
FILE = bytes(9 * 1024 * 1024)
SECRET = "a-value-that-nobody-knows"
SECRETS = """
[secrets]
token = { ssm = "/game/token" }
licence = { secretsmanager = "game/licence" }
"""


@cache
def _certificate() -> str:
    return certificate()


class Closing(Answers):
    """A machine that closes what it says where the job came with a key for that."""

    def __call__(self, script: str) -> Said:
        from amibuild.local.machines.script import Outcome as Said

        if "openssl req" in script:
            return Said(stdout=_certificate())
        said = super().__call__(script)
        if "openssl cms -encrypt" not in script or not said.stdout:
            return said
        head, _, packed = str(said.stdout).partition("\n")
        code = int(head.split()[1])
        closed = closed_for_the_reader(base64.b64decode(packed))
        return Said(exit_code=code, stdout=announce(code, closed))


def run_endpoint(run: Run, data: Path, log: Path, session: boto3.Session) -> Aws:
    """An account with what the recipe names."""
    answers = Closing() if run.with_secrets else Answers()
    if run.unproven:
        del answers.results["checks"]
    options = Options(data, machine="none", script=answers, call_log=log, key=KEY)
    aws = Aws(Service(options), session)
    if run.full:
        aws.s3.create_bucket(Bucket=BUCKET)
        aws.iam.create_instance_profile(InstanceProfileName=PROFILE)
        aws.iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument="{}")
        aws.iam.put_role_policy(RoleName=ROLE, PolicyName="own", PolicyDocument=POLICY)
        aws.iam.add_role_to_instance_profile(InstanceProfileName=PROFILE, RoleName=ROLE)
    if run.with_secrets:
        aws.ssm.put_parameter(Name="/game/token", Value=SECRET, Type="SecureString")
        aws.secrets_manager.create_secret(Name="game/licence", SecretString=SECRET[::-1])
    return aws


def run_project(run: Run, folder: Path) -> Project:
    folder.mkdir()
    recipe = RECIPE
    if run.with_secrets:
        step = folder / "provisioners/fetch"
        step.mkdir(parents=True)
        (step / "provisioner.toml").write_text(STEP.format('"token", "licence"'))
        (step / "run.sh").write_text("#!/usr/bin/env bash\nset -euo pipefail\ntrue\n")
        (step / "test_fetch.py").write_text("def test_it() -> None: ...\n")
        recipe = recipe.replace('"os"', '"fetch"') + SECRETS
    if run.with_file:
        service = folder / "provisioners/services/game"
        service.mkdir(parents=True)
        pin = hashlib.sha256(FILE).hexdigest()
        (service / "service.toml").write_text(SERVICE.format(url="file:server", sha256=pin))
        (folder / "server").write_bytes(FILE)
        recipe = recipe.replace("services = []", 'services = ["game"]')
    (folder / "amibuild.toml").write_text(recipe)
    project = load_project(folder / "amibuild.toml")
    if run.on_spot:
        project = changed(project, builder={"spot": True})
    if run.over_ssh:
        project = changed(project, builder={"communicator": "ssh"})
    if not run.full:
        return project
    return changed(
        project,
        aws={"bucket": BUCKET, "instance_profile": PROFILE, "kms_key": KMS_KEY},
        publish={"accounts": ["444455556666"]},
    )


class Scene:
    """One play of a run: `prepare` without faults, `play` with them, then what is told of it."""

    def __init__(self, run: Run, aws: Aws, project: Project, clock: SwiftClock) -> None:
        self._run, self._aws, self._project, self._clock = run, aws, project, clock
        self.error: AmibuildError | None = None
        self.told: BakeResult | None = None
        self._resumed: str | None = None
        self._report: ReapReport | None = None
        self._twice: set[str] = set()

    @property
    def done(self) -> bool:
        """It handed over its result, or everything is gone that was to go."""
        if self._report is not None:
            return not self._report.left and not self._report.unreached
        return self.told is not None

    @property
    def twice(self) -> list[str]:
        """What was made twice on the way."""
        return sorted(self._twice)

    def prepare(self) -> None:
        if not (self._run.resumed or self._run.reaped):
            return
        answers = self._aws.service.options.script
        assert isinstance(answers, Answers)
        if self._run.resumed:
            answers.exit_codes = {"os": 7}
        else:
            self._aws.service.scripted.faults.order([Fault.parse(one) for one in NOTHING_GOES])
        self._bake(OnError.KEEP if self._run.resumed else OnError.CLEAN)
        assert self.error is not None
        answers.exit_codes, self.error = {}, None
        (journal,) = self._journals()
        self._resumed = journal.stem
        self._aws.__dict__.pop("cloud", None)  # its clients have learnt of those faults

    def play(self) -> None:
        if self._run.reaped:
            try:
                self._report = self.reap()
            except AmibuildError as error:
                self.error = error
        else:
            self._bake(OnError.CLEAN)

    def reap(self) -> ReapReport:
        return reap(
            self._aws.cloud,
            self._project.state_dir,
            target="local",
            dry_run=False,
            kept=True,
            clock=self._clock,
        )

    def reported(self) -> set[str]:
        """The ids of what exit code 4 stands for, now or when it was kept for a look."""
        left: Sequence[Leftover] = self.error.leftovers if self.error else ()
        if self._report is not None:
            left = self._report.left
        kept = {
            id_
            for journal in self._journals()
            for id_, one in Remains(journal).kept.items()
            if self._run.resumed and one.why in KEPT_FOR_LATER
        }
        return kept | {one.id for one in left}

    @property
    def unreached(self) -> bool:
        return self._report is not None and bool(self._report.unreached)

    def _journals(self) -> list[Path]:
        return sorted((self._project.state_dir / "journals").glob("*.jsonl"))

    def _bake(self, on_error: OnError) -> None:
        told: list[BakeResult] = []

        def look(shown: Shown) -> None:
            if isinstance(shown, Created | BakeEnded):
                self._twice.update(made_twice())

        def oversleep(shown: Shown) -> None:
            if isinstance(shown, StepStarted) and shown.step == "os":
                self._clock.sleep(self._project.lease.total_seconds() * 0.7)

        hearing: list[Subscriber] = [look, *([oversleep] if self._run.late else [])]
        try:
            bake(
                self._project,
                self._aws.cloud,
                target="local",
                if_changed=False,
                on_error=on_error,
                subscribers=hearing,
                on_result=told.append,
                resume=self._resumed,
                clock=self._clock,
            )
        except AmibuildError as caught:
            self.error = caught
        self.told = told[0] if told else None
