"""What was purged, and that nothing of it was left."""

from typing import Any

from testinfra.host import Host


def test_unneeded_packages_are_gone_with_their_settings(host: Host, facts: dict[str, Any]) -> None:
    states = "dpkg-query --show --showformat='${Package} ${db:Status-Status}\\n'"
    seen = dict(line.split() for line in host.check_output(states).splitlines())
    assert seen["nftables"] == "installed"
    assert sorted(set(facts["parameters"]["unneeded_packages"]) & seen.keys()) == []
    assert [name for name, state in seen.items() if state == "config-files"] == []
