"""The firewall as the finished image boots it: its table, and what it does to another machine."""

import json

from testinfra.host import Host

# The peer is a network namespace at the other end of a cable, with addresses for documentation.
# 47811 is open and has a server at both ends. 47812 has none: without a firewall it would refuse.
PEER = """
set -eu
ip netns add amicheck
trap 'kill $(jobs -p); ip netns delete amicheck
      nft delete element inet amibuild tcp_open { 47811 }
      nft delete element inet amibuild udp_open { 47811 }' EXIT
ip link add amicheck0 type veth peer name amicheck1 netns amicheck
ip address add 192.0.2.1/30 dev amicheck0
ip link set amicheck0 up
ip -n amicheck address add 192.0.2.2/30 dev amicheck1
ip -n amicheck link set amicheck1 up
nft add element inet amibuild tcp_open { 47811 }
nft add element inet amibuild udp_open { 47811 }
there="ip netns exec amicheck"
python3 -I -S -c "$1" serve 192.0.2.1 &
$there python3 -I -S -c "$1" serve 192.0.2.2 &
$there python3 -I -S -c "$1" ask 192.0.2.1
python3 -I -S -c "$1" ask 192.0.2.2
"""
PROBE = """
import socket, sys, threading, time
OPEN, CLOSED = 47811, 47812
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_, verb, address = sys.argv

def answer_datagrams(one):
    while True:
        one.sendto(*one.recvfrom(16))

def ask(port, kind):
    with socket.socket(socket.AF_INET, kind) as one:
        one.settimeout(1 if port == CLOSED else 10)
        try:
            one.connect((address, port))
            one.send(b"hello")
            return "answer" if one.recv(16) == b"hello" else "nonsense"
        except ConnectionRefusedError:
            return "refusal"
        except TimeoutError:
            return "silence"

def ask_until_it_serves(kind):
    until = time.monotonic() + 20
    while (said := ask(OPEN, kind)) == "refusal" and time.monotonic() < until:
        time.sleep(0.1)
    return said

if verb == "serve":
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((address, OPEN))
    threading.Thread(target=answer_datagrams, args=(datagrams,), daemon=True).start()
    listener = socket.create_server((address, OPEN))
    while True:
        with listener.accept()[0] as connection:
            connection.send(connection.recv(16))
for name, kind in KINDS.items():
    print(f"{address} {name} {OPEN}: {ask_until_it_serves(kind)}")
    print(f"{address} {name} {CLOSED}: {ask(CLOSED, kind)}")
"""


def test_its_table_is_loaded_at_boot(host: Host) -> None:
    shown = "systemctl show --property=UnitFileState,ActiveState nftables.service"
    seen = host.check_output(shown).split()
    assert sorted(seen) == ["ActiveState=active", "UnitFileState=enabled"]
    listed = json.loads(host.check_output("nft --json list table inet amibuild"))
    chains = [item["chain"] for item in listed["nftables"] if "chain" in item]
    assert {chain["hook"]: chain["policy"] for chain in chains} == {
        "input": "drop",
        "forward": "drop",
    }


def test_another_machine_hears_open_ports_and_no_others(host: Host) -> None:
    told = host.run("bash -c %s bash %s", PEER, PROBE)
    assert told.rc == 0, told.stderr
    assert told.stdout.splitlines() == [
        "192.0.2.1 tcp 47811: answer",
        "192.0.2.1 tcp 47812: silence",
        "192.0.2.1 udp 47811: answer",
        "192.0.2.1 udp 47812: silence",
        # The other way round: the peer has no firewall, and its answers come in.
        "192.0.2.2 tcp 47811: answer",
        "192.0.2.2 tcp 47812: refusal",
        "192.0.2.2 udp 47811: answer",
        "192.0.2.2 udp 47812: refusal",
    ]


def test_loading_it_again_changes_nothing(host: Host) -> None:
    def listed() -> object:
        found = json.loads(host.check_output("nft --json list table inet amibuild"))["nftables"]
        for item in found:
            for thing in item.values():
                thing.pop("handle", None)
            if "set" in item:
                item["set"]["elem"] = sorted(item["set"].get("elem", []))
        return [item for item in found if "rule" not in item]

    before = listed()
    host.check_output("systemctl reload nftables.service")
    assert listed() == before


def test_the_machine_still_reaches_its_metadata(host: Host) -> None:
    answer = (
        "curl -fsS --max-time 20 --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 60'"
        " http://169.254.169.254/latest/api/token"
    )
    assert len(host.check_output(answer)) > 10
