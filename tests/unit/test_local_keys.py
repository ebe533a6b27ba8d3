"""The access keys that open the endpoint."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from amibuild import proc
from amibuild.local.control import Control, Lifetime
from amibuild.local.folder import LOCK
from amibuild.local.keys import FILE, AccessKey, RoleKeys, is_known, new_key, own_key


def test_a_data_folder_has_one_key_for_its_user_alone(tmp_path: Path) -> None:
    key = own_key(tmp_path / "local")
    assert own_key(tmp_path / "local") == key
    file = tmp_path / "local" / FILE
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    assert own_key(tmp_path / "local") == key
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in file.parent.iterdir()) == [FILE, LOCK]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "{}",
        json.dumps({"id": "", "secret": ""}),
        json.dumps({"id": 1, "secret": 2}),
        json.dumps({"id": "AKIAIOSFODNN7EXAMPLE", "secret": "short"}),
    ],
)
def test_what_is_no_key_is_replaced(tmp_path: Path, said: str) -> None:
    (tmp_path / FILE).write_text(said)
    key = own_key(tmp_path)
    assert (len(key.id), len(key.secret)) == (20, 40)
    assert own_key(tmp_path) == key


def test_two_that_start_at_once_have_the_same_key(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from amibuild.local.keys import own_key;"
        "sys.stdin.read(); key = own_key(Path(sys.argv[1])); print(key.id, key.secret)"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "local")]
    all_of_them = [proc.start(words, stdin=proc.PIPE, stdout=proc.PIPE) for _ in range(6)]
    for process in all_of_them:
        assert process.stdin is not None
        process.stdin.close()
    said = set()
    for process in all_of_them:
        assert process.stdout is not None
        with process.stdout:
            said.add(process.stdout.read())
        process.wait()
    assert len(said) == 1


def test_keys_are_not_shown_by_accident() -> None:
    key = new_key()
    assert key.id not in repr(key)
    assert key.secret not in repr(key)


def test_only_what_was_given_out_is_known() -> None:
    own, roles = new_key(), RoleKeys()
    assert is_known(own.id, own)
    assert not is_known("", AccessKey("", ""))
    assert not is_known(new_key().id, own)
    assert roles.of("i-1", "game") == roles.of("i-1", "game") != roles.of("i-2", "game")
    assert roles.know(roles.of("i-1", "game").id)


def test_a_page_without_a_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="anybody"):
        Control(Lifetime(owned=True), "", dict, lambda _: None, lambda _: {})
