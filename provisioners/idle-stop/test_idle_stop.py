"""The machine looks each minute whether somebody is connected, and decides as its settings say."""

import json
import tomllib
from typing import Any

from testinfra.host import Host

Facts = dict[str, Any]

PROGRAM = "/usr/lib/amibuild/idle-stop"


def services(host: Host) -> dict[str, Any]:
    listed = host.run("cat /etc/amibuild/services/*.json").stdout
    found, decoder = {}, json.JSONDecoder()
    while listed := listed.strip():
        facts, end = decoder.raw_decode(listed)
        found[facts["name"]] = facts
        listed = listed[end:]
    return found


def test_its_timer_is_enabled_and_waits(host: Host) -> None:
    shown = "systemctl show --property=UnitFileState,ActiveState idle-stop.timer"
    seen = host.check_output(shown).split()
    assert sorted(seen) == ["ActiveState=active", "UnitFileState=enabled"]


def test_its_settings_are_the_recipes(host: Host, facts: Facts) -> None:
    settings = tomllib.loads(host.check_output("cat /etc/amibuild/idle-stop.toml"))
    assert settings == facts["parameters"]


def look(host: Host) -> dict[str, Any]:
    """What a look now writes into the journal. The machine booted just now, so it stays on."""
    host.check_output("systemctl start idle-stop.service && journalctl --sync")
    logged = "journalctl --boot --identifier=idle-stop --output=cat --no-pager"
    last: dict[str, Any] = json.loads(host.check_output(logged).splitlines()[-1])
    return last


def test_it_stays_on_after_a_boot(host: Host, facts: Facts) -> None:
    last = look(host)
    assert last["decision"] == "stay"
    assert 0 < last["minutes_left"] <= facts["parameters"]["minutes"]


def test_a_dry_run_prints_a_decision_on_each_service(host: Host) -> None:
    look(host)
    decision = json.loads(host.check_output(f"{PROGRAM} --dry-run"))
    assert decision["decision"] == "stay"
    assert set(decision["players"]) == set(services(host))
    # Nobody is there yet. A title that is asked, and still starts, can't tell.
    by_traffic = {name for name, s in services(host).items() if "tcp" in s["players"]}
    assert {name: decision["players"][name] for name in by_traffic} == dict.fromkeys(by_traffic, 0)


def test_packets_of_its_udp_services_are_counted(host: Host) -> None:
    ports = {port for s in services(host).values() for port in s["players"].get("udp", ())}
    if ports:
        look(host)
        listed = json.loads(host.check_output("nft --json list set inet amibuild_idle ports"))
        (found,) = [entry["set"]["elem"] for entry in listed["nftables"] if "set" in entry]
        assert set(found) == ports
