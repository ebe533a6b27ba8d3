"""The command line: exit codes, one JSON object, stdout for results and nothing else."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from amibuild import proc
from amibuild.cli import start
from amibuild.cli.main import app, hoisted
from amibuild.cli.session import session
from amibuild.cli.start import Example
from amibuild.cli.table import columns
from amibuild.errors import (
    AmibuildError,
    CommandFailed,
    HostError,
    Interrupted,
    Leftover,
    LeftoverError,
    PlanError,
    UsageError,
    VerifyFailed,
)

LEFT = Leftover("instance", "i-1", "us-east-1", "denied", "aws ec2 terminate-instances …")


def amibuild(*arguments: str | Path) -> proc.Finished:
    command = [sys.executable, "-m", "amibuild.cli.main", *arguments]
    return proc.run(command, check=False)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HostError("x"), 1),
        (UsageError("x"), 2),
        (PlanError("x"), 2),
        (VerifyFailed("x"), 3),
        (LeftoverError([LEFT]), 4),
        (Interrupted("SIGINT"), 130),
    ],
)
def test_each_error_has_its_exit_code(
    error: AmibuildError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended_with(error) == code
    assert capsys.readouterr().out == ""


def test_leftovers_win_over_what_came_before_them(capsys: pytest.CaptureFixture[str]) -> None:
    error = VerifyFailed("x")
    error.leftovers = (LEFT,)
    assert ended_with(error) == 4
    assert "aws ec2 terminate-instances" in capsys.readouterr().err


def ended_with(error: AmibuildError, *, as_json: bool = False) -> int:
    context = typer.Context(typer.main.get_command(app))
    with pytest.raises(typer.Exit) as end, session(context, as_json=as_json):
        raise error
    return end.value.exit_code


@pytest.mark.parametrize(
    "words", [["bake", "--bad"], ["plan", "--target", "gcp"], ["show"], ["nope"]]
)
def test_a_wrong_command_line_is_one_json_object_too(words: list[str]) -> None:
    done = amibuild(*words, "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["error"]["exit_code"] == 2
    assert done.stderr


def test_a_failed_commands_json_says_what_a_script_needs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = CommandFailed(
        what="web", exit_code=7, reason="ended with exit code 7", tail=["no"], log=Path("web.log")
    )
    assert ended_with(error, as_json=True) == 1
    said = json.loads(capsys.readouterr().out)["error"]
    assert (said["command_exit_code"], said["tail"], said["log"]) == (7, ["no"], "web.log")


def test_nothing_can_be_baked_on_machines_that_are_not_there(tmp_path: Path) -> None:
    done = amibuild("bake", tmp_path / "amibuild.toml", "--machine", "none")
    assert done.exit_code == 2
    assert "--machine none" in done.stderr.decode()


def test_a_lock_timeout_that_is_none_is_refused_before_anything(tmp_path: Path) -> None:
    done = amibuild("bake", tmp_path / "amibuild.toml", "--lock-timeout", "soon")
    assert done.exit_code == 2
    assert "--lock-timeout: 'soon' is no duration" in done.stderr.decode()


@pytest.mark.parametrize("folder", ["/proc/foo", "/dev/null", "x" * 300])
def test_a_folder_that_can_hold_no_recipe_is_told_without_a_traceback(folder: str) -> None:
    done = amibuild("init", folder)
    assert done.exit_code == 1
    assert b"Traceback" not in done.stderr


def test_a_failure_is_one_json_object_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    ended_with(LeftoverError([LEFT]), as_json=True)
    body = json.loads(capsys.readouterr().out)
    assert body["error"]["exit_code"] == 4
    assert body["error"]["leftovers"][0]["id"] == "i-1"


def test_a_failure_after_the_result_does_not_print_a_second_object(
    capsys: pytest.CaptureFixture[str],
) -> None:
    context = typer.Context(typer.main.get_command(app))
    with pytest.raises(typer.Exit), session(context, as_json=True) as run:
        run.result("", {"image": "ami-1"})
        raise HostError("late")
    assert json.loads(capsys.readouterr().out) == {"image": "ami-1"}


def test_a_bug_shows_its_own_traceback() -> None:
    context = typer.Context(typer.main.get_command(app))
    with pytest.raises(ZeroDivisionError), session(context, as_json=False):
        _ = 1 / 0


def test_every_mistake_in_a_recipe_is_a_line_and_the_exit_code_is_2(tmp_path: Path) -> None:
    recipe = tmp_path / "amibuild.toml"
    recipe.write_text('[image]\nname = "BAD NAME"\n[builder]\nvolume_gb = 8\n')
    done = amibuild("plan", recipe)
    assert done.exit_code == 2
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert any(f"{recipe}:2: image.name:" in line for line in lines)
    assert any(f"{recipe}:4: builder.volume_gb:" in line for line in lines)


def test_the_mistakes_are_in_the_json_too(tmp_path: Path) -> None:
    recipe = tmp_path / "amibuild.toml"
    recipe.write_text("[image]\n")
    done = amibuild("bake", recipe, "--json")
    body = json.loads(done.stdout)
    assert (done.exit_code, body["error"]["kind"]) == (2, "RecipeError")
    assert body["error"]["problems"][0]["key"] == "image.name"


@pytest.mark.parametrize(
    "arguments",
    [
        ("bake", "--nope"),
        ("nope",),
        ("bake", "--target", "moon"),
        ("bake", "--machine", "moon"),
        ("bake", "--on-error", "moon"),
        ("verify",),
        ("show",),
    ],
)
def test_wrong_usage_exits_with_2_and_says_so_on_stderr(arguments: tuple[str, ...]) -> None:
    done = amibuild(*arguments)
    assert (done.exit_code, done.stdout) == (2, b"")
    assert b"Error: " in done.stderr


def test_a_wrong_choice_is_told_in_plain_words() -> None:
    said = json.loads(amibuild("plan", "--target", "moon", "--json").stdout)["error"]["message"]
    assert "Value error" not in said
    assert said.endswith("'moon' is not one of 'local', 'aws'.")
    assert b"Value error" not in amibuild("bake", "--on-error", "moon").stderr


def test_a_shells_command_without_its_dashes_is_led_to_them() -> None:
    done = amibuild("local", "shell", "i-0abc", "ls", "-la")
    assert done.exit_code == 2
    assert b"amibuild local shell INSTANCE -- ls -la" in done.stderr


def test_init_writes_a_recipe_once_and_then_leaves_it_alone(tmp_path: Path) -> None:
    done = amibuild("init", tmp_path)
    recipe = tmp_path / "amibuild.toml"
    assert (done.exit_code, done.text) == (0, f"{recipe}\n")
    recipe.write_text("mine")
    again = amibuild("init", tmp_path)
    assert (again.exit_code, again.text) == (2, "")
    assert recipe.read_text() == "mine"


def test_the_starter_recipe_is_a_good_one(tmp_path: Path) -> None:
    from amibuild.project import load_project

    amibuild("init", tmp_path)
    project = load_project(tmp_path / "amibuild.toml")
    assert [step.name for step in project.steps][-1] == "seal"


@pytest.mark.parametrize("example", list(Example))
def test_init_copies_an_example_whole_or_leaves_what_is_there_alone(
    tmp_path: Path, example: Example
) -> None:
    from amibuild.project import load_project

    done = amibuild("init", tmp_path / "new", "--example", example)
    recipe = tmp_path / "new/amibuild.toml"
    assert (done.exit_code, done.text) == (0, f"{recipe}\n")
    shipped = load_project(Path(start.__file__).parents[1] / "examples" / example / recipe.name)
    assert [s.digest for s in load_project(recipe).steps] == [s.digest for s in shipped.steps]
    mine = tmp_path / "mine/provisioners/services/factorio/service.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    refused = amibuild("init", tmp_path / "mine", "--example", example)
    assert refused.exit_code == 2
    assert f"{mine} exists" in refused.stderr.decode()
    assert [p for p in (tmp_path / "mine").rglob("*") if p.is_file()] == [mine]


@pytest.mark.parametrize("arguments", [("schema",), ("schema", "--manifest")])
def test_a_schema_is_one_json_object(arguments: tuple[str, ...]) -> None:
    body: dict[str, Any] = json.loads(amibuild(*arguments).stdout)
    assert body["type"] == "object"
    assert body["properties"]


def test_the_version_is_printed() -> None:
    from amibuild import __version__

    assert amibuild("--version").text == f"amibuild {__version__}\n"


def test_common_options_may_stand_behind_the_verb() -> None:
    assert hoisted(["bake", "x.toml", "--debug", "--json"]) == [
        "--debug",
        "bake",
        "x.toml",
        "--json",
    ]
    assert hoisted(["bake", "--", "--debug"]) == ["bake", "--", "--debug"]


def test_debug_tells_where_an_error_came_from(tmp_path: Path) -> None:
    quietly = amibuild("plan", tmp_path / "none.toml")
    loudly = amibuild("plan", tmp_path / "none.toml", "--debug")
    assert b"Traceback" not in quietly.stderr
    assert b"Traceback" in loudly.stderr
    assert quietly.exit_code == loudly.exit_code == 2


def test_an_interrupt_exits_with_130() -> None:
    context = typer.Context(typer.main.get_command(app))
    with pytest.raises(typer.Exit) as end, session(context, as_json=False):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert end.value.exit_code == 130


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m amibuild.cli.main schema | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = proc.run(["bash", "-c", command], check=False)
    assert (done.exit_code, done.text, done.stderr) == (0, "{\n", b"")


def test_a_result_that_cannot_be_written_is_an_error_without_a_traceback() -> None:
    command = f"{sys.executable} -m amibuild.cli.main schema >/dev/full"
    done = proc.run(["bash", "-c", command], check=False)
    said = b"failed: the result can't be written to stdout: No space left on device\n"
    assert (done.exit_code, done.stderr) == (1, said)


def test_a_folder_that_cannot_be_written_to_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = amibuild("init", tmp_path / "file" / "below")
    assert done.exit_code == 1
    assert done.stderr.decode() == f"failed: {tmp_path}/file/below: Not a directory\n"


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert columns([("a", "bb", ""), ("ccc", "d", "e")]) == "a    bb\nccc  d   e"
    assert columns([]) == ""
