"""Where the secrets of a recipe come from, and what is refused before anything costs."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from amibuild import journal as bake_journal
from amibuild import proc, secret
from amibuild.bake import bake
from amibuild.cli.options import MachineName, TargetName
from amibuild.cli.target import open_recipe
from amibuild.communicator import envelope
from amibuild.errors import PlanError, RecipeError, StepFailed, VerifyFailed
from amibuild.journal import Given
from amibuild.project import Project, load_project
from amibuild.recipe.environment import withheld
from amibuild.scope import OnError
from amibuild.secret import MASK, Secret
from amibuild.steps.secrets import read_secrets
from amibuild.ui import open_story
from amibuild.verify.report import junit_xml
from amibuild.wording import failure_lines
from tests.contract.builder import Answers, announce, checks, pack
from tests.contract.conftest import Aws, Start

if TYPE_CHECKING:
    from amibuild.local.machines.script import Outcome

VALUE = "a-value-that-nobody-knows"
STEP = """\
purpose = "Fetches with a token."
secrets = [{}]
"""


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    secret.forget_all()


def project(folder: Path, sources: str, reads: str = '"token"', script: str = "true") -> Project:
    step = folder / "provisioners" / "fetch"
    step.mkdir(parents=True)
    (step / "provisioner.toml").write_text(STEP.format(reads))
    (step / "run.sh").write_text(f"#!/usr/bin/env bash\nset -euo pipefail\n{script}\n")
    (step / "test_fetch.py").write_text("def test_it() -> None: ...\n")
    recipe = folder / "amibuild.toml"
    recipe.write_text(
        f'[image]\nname = "game"\n[provision]\nsteps = ["fetch"]\n[secrets]\n{sources}\n'
    )
    return load_project(recipe)


def read(aws: Aws, project: Project, **environ: str) -> dict[str, str]:
    found = read_secrets(aws.cloud, project.recipe, project.steps, environ)
    return {name: one.reveal() for name, one in found.items()}


def test_from_the_environment(aws: Aws, tmp_path: Path) -> None:
    made = project(tmp_path, 'token = { env = "TOKEN" }')
    assert read(aws, made, TOKEN=VALUE) == {"token": VALUE}


def test_from_a_secure_parameter(aws: Aws, tmp_path: Path) -> None:
    aws.ssm.put_parameter(Name="/game/token", Value=VALUE, Type="SecureString")
    made = project(tmp_path, 'token = { ssm = "/game/token" }')
    assert read(aws, made) == {"token": VALUE}


def test_from_secrets_manager_whole_or_by_a_key(aws: Aws, tmp_path: Path) -> None:
    client = aws.secrets_manager
    client.create_secret(Name="game/whole", SecretString=VALUE)
    client.create_secret(Name="game/json", SecretString=json.dumps({"password": VALUE + "2"}))
    made = project(
        tmp_path,
        'token = { secretsmanager = "game/whole" }\n'
        'other = { secretsmanager = "game/json", key = "password" }',
        '"token", "other"',
    )
    assert read(aws, made) == {"token": VALUE, "other": VALUE + "2"}


def test_all_that_cannot_be_had_is_told_at_once(aws: Aws, tmp_path: Path) -> None:
    aws.ssm.put_parameter(Name="/game/plain", Value=VALUE, Type="String")
    aws.secrets_manager.create_secret(Name="game/text", SecretString=VALUE)
    aws.secrets_manager.create_secret(Name="game/bytes", SecretBinary=b"x" * 20)
    made = project(
        tmp_path,
        'a = { env = "NOT_SET" }\n'
        'b = { env = "SHORT" }\n'
        'c = { ssm = "/game/missing" }\n'
        'd = { ssm = "/game/plain" }\n'
        'e = { secretsmanager = "game/missing" }\n'
        'f = { secretsmanager = "game/text", key = "password" }\n'
        'g = { secretsmanager = "game/bytes" }\n',
        '"a", "b", "c", "d", "e", "f", "g"',
    )
    with pytest.raises(PlanError) as caught:
        read(aws, made, SHORT="hunter2")
    lines = caught.value.message.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"secrets.{name}" for name in "abcdefg"]
    assert "the environment has no such variable" in lines[0]
    assert "has 7 bytes, and less than 16" in lines[1]
    assert "there is none of that name (ParameterNotFound)" in lines[2]
    assert "is no SecureString" in lines[3]
    assert "there is none of that name (ResourceNotFoundException)" in lines[4]
    assert "is no JSON object" in lines[5]
    assert "holds bytes" in lines[6]
    assert VALUE not in caught.value.message
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("place", ["env", "ssm", "secretsmanager"])
def test_a_value_written_where_its_address_belongs_is_not_repeated(
    aws: Aws, tmp_path: Path, place: str
) -> None:
    made = project(tmp_path, f'token = {{ {place} = "{VALUE}" }}')
    with pytest.raises(PlanError) as caught:
        read(aws, made)
    assert VALUE not in caught.value.message


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("ssm", "GetParameter:*=ValidationException"),
        ("ssm", "GetParameter:*=InvalidKeyId"),
        ("secretsmanager", "GetSecretValue:*=DecryptionFailure"),
    ],
)
def test_whatever_else_is_answered_repeats_it_neither(
    start: Start, tmp_path: Path, place: str, fault: str
) -> None:
    made = project(tmp_path, f'token = {{ {place} = "{VALUE}" }}')
    with pytest.raises(PlanError) as caught:
        read(start(fault), made)
    code = fault.partition("=")[2]
    assert caught.value.message == f"secrets.token: it could not be read ({code})"


def test_one_that_stands_in_a_step_in_clear_is_refused(aws: Aws, tmp_path: Path) -> None:
    made = project(tmp_path, 'token = { env = "TOKEN" }', script=f"curl -H 'Token: {VALUE}'")
    with pytest.raises(PlanError) as caught:
        read(aws, made, TOKEN=VALUE)
    assert caught.value.message == "secrets.token: its value stands in fetch: run.sh"


def test_another_mistake_is_told_alone(tmp_path: Path) -> None:
    project(tmp_path, 'token = { env = "T" }')
    recipe = tmp_path / "amibuild.toml"
    recipe.write_text(recipe.read_text() + "[builder]\nvolume_gib = 0\n")
    with pytest.raises(RecipeError) as caught:
        load_project(recipe)
    assert [problem.key for problem in caught.value.problems] == ["builder.volume_gib"]


def test_children_do_not_get_the_variables_of_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", VALUE)
    made = project(tmp_path, 'token = { env = "TOKEN" }')
    assert withheld(made.recipe) == {"TOKEN": VALUE}
    assert proc.run(["sh", "-c", "echo ${TOKEN-none}"]).text == "none\n"
    assert withheld(made.recipe) == {}


def test_nor_do_those_of_a_verb_that_needs_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", VALUE)
    made = project(tmp_path, 'token = { env = "TOKEN" }')
    with (
        open_story(color=False, live=False) as story,
        open_recipe(made.path, TargetName.AWS, MachineName.AUTO, story),
    ):
        assert proc.run(["sh", "-c", "echo ${TOKEN-none}"]).text == "none\n"


@pytest.mark.parametrize(
    ("sources", "reads", "told"),
    [
        ("", '"token"', "secrets.token: is missing: fetch reads it; say where it comes from"),
        ('tokem = { env = "T" }', '"token"', "is missing: fetch reads it; did you mean tokem?"),
        ('token = { env = "T" }', "", "secrets.token: is read by no step of this recipe"),
        ("token = {}", '"token"', "needs exactly one of env, ssm and secretsmanager"),
        ('token = { env = "T", ssm = "/t" }', '"token"', "and has env and ssm"),
        ('token = { env = "T", key = "k" }', '"token"', "key is for a secret of Secrets Manager"),
        ('"To-ken" = { env = "T" }', "", "is not a name of lower-case words joined by _"),
    ],
)
def test_a_recipe_that_names_them_wrongly(
    tmp_path: Path, sources: str, reads: str, told: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        project(tmp_path, sources, reads)
    assert told in caught.value.message


@pytest.mark.parametrize("line", ['token = "{}"', "token = {}", "token = [", 'token = {{ "{}" }}'])
def test_one_written_into_the_recipe_is_refused_and_not_shown(tmp_path: Path, line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        project(tmp_path, line.format(VALUE))
    shown = "\n".join(told.text for told in failure_lines(caught.value))
    assert "amibuild.toml:" in shown
    assert VALUE not in shown + repr(caught.value.problems)


def certificate() -> str:
    """What openssl prints on a machine."""
    asked = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=amibuild")
    return proc.run(["openssl", *asked, "-keyout", os.devnull]).text


@dataclass
class Tells(Answers):
    """A machine whose every job prints the secret, as it is and encoded, once it was given it."""

    certificate: str = ""
    given: bool = False

    def __call__(self, script: str) -> Outcome:
        from amibuild.local.machines.script import Outcome

        if "openssl req" in script:
            self.given = True
            return Outcome(stdout=self.certificate)
        found = super().__call__(script)
        if not self.given or not found.stdout:
            return found
        job = self.jobs[-1]
        encoded = base64.b64encode(f"user:{VALUE}".encode()).decode()
        said = f"Token: {VALUE}\nAuthorization: Basic {encoded}\n"
        result = json.dumps(self.results[job]).encode() if job in self.results else VALUE.encode()
        packed = pack(said.encode(), result)
        if "openssl cms -encrypt" in script:
            packed = closed_for_the_reader(packed)
        last_words = "" if "tail -n 20" not in script else said
        return replace(found, stdout=announce(found.exit_code, packed), stderr=last_words)


def closed_for_the_reader(reply: bytes) -> bytes:
    """As openssl does on the machine, for the certificate that came with the job."""
    with tempfile.NamedTemporaryFile() as pem:
        pem.write(envelope.own_certificate())
        pem.flush()
        words = ("cms", "-encrypt", "-binary", "-aes256", "-outform", "DER", pem.name)
        return proc.run(["openssl", *words], stdin=reply).stdout


@pytest.mark.parametrize("failing", ["", "fetch", "checks"])
def test_a_bake_leaves_it_in_no_file_and_no_command(
    start: Start, tmp_path: Path, failing: str
) -> None:
    made = project(tmp_path / "project", 'token = { env = "TOKEN" }')
    answers = Tells(exit_codes={failing: 1}, certificate=certificate())
    if failing == "checks":
        answers.results["checks"] = checks("failed", f"assert 'token={VALUE}' == ''")
    aws = start(script=answers)
    heard: list[str] = []

    def bake_it() -> None:
        bake(
            made,
            aws.cloud,
            target="local",
            if_changed=False,
            on_error=OnError.CLEAN,
            subscribers=[lambda shown: heard.append(repr(shown))],
            on_result=lambda _: None,
            on_proof=lambda proof: heard.append(
                junit_xml(proof.whole_report, suite="game", host="i-1")
            ),
            environ={"TOKEN": VALUE},
        )

    if failing:
        with pytest.raises((StepFailed, VerifyFailed)) as caught:
            bake_it()
        told = "\n".join(line.text for line in failure_lines(caught.value))
        assert MASK in told
        assert VALUE not in repr(caught.value) + told
    else:
        bake_it()
    token = Secret("token", VALUE)
    (journal,) = (made.state_dir / "journals").iterdir()
    given = [event for event in bake_journal.read(journal) if isinstance(event, Given)]
    assert [one.secrets for one in given] == [{"token": token.fingerprint(journal.stem)}]
    texts = {str(path): path.read_bytes() for path in made.directory.rglob("*") if path.is_file()}
    log = next(text for name, text in texts.items() if name.endswith("fetch.log"))
    assert log.decode().startswith(f"Token: {MASK}\nAuthorization: Basic ")
    texts["story"] = "\n".join(heard).encode()
    commands = aws.ssm.list_commands()["Commands"]
    assert len(commands) > 3
    for command in commands:
        said = aws.ssm.get_command_invocation(
            CommandId=command["CommandId"], InstanceId=command["InstanceIds"][0]
        )
        texts[command["Comment"]] = json.dumps([command, said], default=str).encode()
        for part in re.findall(r"[A-Za-z0-9+/\n]{60,}={0,2}", said["StandardOutputContent"]):
            texts[f"{command['Comment']}, decoded"] = opened(base64.b64decode(part + "=="))
    assert [name for name, text in texts.items() if token.is_in(text)] == []


def opened(content: bytes) -> bytes:
    """What is in a reply, where it is one that anybody can open."""
    try:
        return gzip.decompress(content)
    except OSError:
        return content
