"""Whoever guesses logins is shut out: shown with a guest from another address."""

from typing import Any

from testinfra.host import Host

Facts = dict[str, Any]

# A network namespace at the other end of a cable, with addresses for documentation: it tries names
# that are not there, as those do who try lists of them.
GUESSES = """
set -eu
ip netns add amiguess
trap 'ip netns delete amiguess; fail2ban-client unban --all >/dev/null' EXIT
ip link add amiguess0 type veth peer name amiguess1 netns amiguess
ip address add 198.51.100.1/30 dev amiguess0
ip link set amiguess0 up
ip -n amiguess address add 198.51.100.2/30 dev amiguess1
ip -n amiguess link set amiguess1 up
tries() {
    ip netns exec amiguess ssh -o BatchMode=yes -o StrictHostKeyChecking=no \
        -o UserKnownHostsFile=/dev/null -o ConnectTimeout=5 "$1@198.51.100.1" true 2>&1 | tail -n 1
}
for name in oracle postgres ubnt pi; do tries "$name" || true; done
for _ in $(seq 100); do
    fail2ban-client get sshd banip | grep -q 198.51.100.2 && break
    sleep 0.3
done
echo "banned: $(fail2ban-client get sshd banip)"
echo "then: $(tries admin || true)"
"""


def test_an_address_that_guesses_is_banned(host: Host, facts: Facts) -> None:
    if not facts["parameters"]["ssh"]:
        # Nothing for it to read: no login can be tried from elsewhere.
        assert host.run("command -v fail2ban-server").rc != 0
        return
    told = host.run("bash -c %s", GUESSES)
    assert told.rc == 0, told.stderr
    *tried, banned, then = told.stdout.splitlines()
    assert "Permission denied" in tried[0], told.stdout
    assert banned.strip() == "banned: 198.51.100.2"
    assert "Permission denied" not in then
    assert any(word in then for word in ("refused", "timed out", "unreachable")), then
