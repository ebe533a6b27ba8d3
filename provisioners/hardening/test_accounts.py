"""Nobody has a password, and what is no person has no shell."""

from typing import Any

from testinfra.host import Host


def test_no_account_has_a_password(host: Host) -> None:
    hashes = [line.split(":")[:2] for line in host.check_output("cat /etc/shadow").splitlines()]
    assert ["root", "!*"] in hashes
    assert [name for name, hashed in hashes if hashed.strip("!*") or not hashed] == []


def test_no_system_account_but_roots_has_a_shell(host: Host, facts: dict[str, Any]) -> None:
    people = [line.split(":") for line in host.check_output("cat /etc/passwd").splitlines()]
    assert [name for name, _, uid, *_ in people if uid == "0"] == ["root"]
    system = [one for one in people if 0 < int(one[2]) < 1000]
    found = {one[0] for one in system if not one[6].endswith(("/nologin", "/false"))}
    told = "take its shell, or name it in params.hardening.shell_accounts"
    assert sorted(found - set(facts["parameters"]["shell_accounts"])) == [], told
