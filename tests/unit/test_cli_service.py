"""`amibuild service`: a service begins as a file that is right, and shows what it makes."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

from amibuild import proc
from amibuild.library.folder import read_service
from amibuild.library.service import ServiceFile
from amibuild.recipe.document import known_keys


def amibuild(folder: Path, *words: str) -> proc.Finished:
    argv = [sys.executable, "-m", "amibuild.cli.main", *words]
    return proc.run(argv, cwd=folder, check=False, timeout_s=60)


def test_a_new_service_is_right_as_it_is_written(tmp_path: Path) -> None:
    done = amibuild(tmp_path, "service", "new", "my-game", "--json")
    assert done.exit_code == 0, done.stderr
    path = tmp_path / json.loads(done.stdout)["file"]
    assert path == tmp_path / "provisioners/services/my-game/service.toml"
    assert read_service(path.parent).problems == ()


def test_the_example_is_right_with_all_that_is_commented_out(tmp_path: Path) -> None:
    """based_on is left out, since what it names is not there, and the plural of [artifact]."""
    amibuild(tmp_path, "service", "new", "my-game")
    path = tmp_path / "provisioners/services/my-game/service.toml"
    text = re.sub(r"^# (?=[a-z0-9_]+ = |\[)(?!based_on)", "", path.read_text(), flags=re.MULTILINE)
    flat, first_table, tables = text.partition("[[ports]]")
    path.write_text(
        flat + first_table + tables + '# public\n[[ports]]\nname = "status"\nport = 80\n'
        'protocol = "tcp"\n'
    )
    found = read_service(path.parent)
    assert found.problems == ()
    named = set(tomllib.loads(path.read_text()))
    all_keys = {str(key[0]) for key in known_keys(ServiceFile)}
    assert all_keys - named == {"artifacts", "based_on", "timeout_s"}


def test_an_existing_service_is_left_alone(tmp_path: Path) -> None:
    amibuild(tmp_path, "service", "new", "my-game")
    path = tmp_path / "provisioners/services/my-game/service.toml"
    path.write_text("mine")
    done = amibuild(tmp_path, "service", "new", "my-game")
    assert done.exit_code == 2
    assert path.read_text() == "mine"


def test_a_bundled_services_name_is_taken_and_told(tmp_path: Path) -> None:
    done = amibuild(tmp_path, "service", "new", "minetest")
    assert done.exit_code == 0
    assert (tmp_path / done.text.strip()).is_file()
    said = "minetest is bundled too: from now on this recipe takes provisioners/services/minetest"
    assert said in done.stderr.decode()
    assert b"bundled" not in amibuild(tmp_path, "service", "new", "my-game").stderr


def test_a_name_that_would_leave_the_folder_is_refused(tmp_path: Path) -> None:
    assert amibuild(tmp_path, "service", "new", "../x").exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_all_that_a_service_compiles_to_is_shown(tmp_path: Path) -> None:
    done = amibuild(tmp_path, "service", "show", "mumble")
    assert done.exit_code == 0, done.stderr
    for path in ("units/mumble.service", "units/mumble-data.service", "firewall.nft", "facts.json"):
        assert f"==> {path}\n" in done.text
    shown = json.loads(amibuild(tmp_path, "service", "show", "mumble", "--json").stdout)
    assert shown["facts"]["log_group"] == "/IMAGE/mumble"
    assert shown["files"]["units/mumble.service"] in done.text


def test_an_unknown_service_is_told_with_what_was_probably_meant(tmp_path: Path) -> None:
    done = amibuild(tmp_path, "service", "show", "mumbel")
    assert done.exit_code == 2
    assert b"did you mean mumble?" in done.stderr
