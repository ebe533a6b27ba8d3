"""What passes between endpoint and supervisor, and the addresses that follow from a number."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from amibuild.local.machines.network import claim
from amibuild.local.machines.order import (
    MACHINES,
    Addresses,
    Isolation,
    Order,
    Root,
    Stage,
    message,
    read_message,
)

ORDER = Order(
    instance_id="i-0123456789abcdef0",
    run_dir="run",
    network_index=7,
    endpoint_port=4566,
    isolation=Isolation.FULL,
    ssh_port=22,
    argv=("systemd-nspawn", "--boot"),
    environment=(("NAME", "value"),),
    inherit=(5, 6),
    console=7,
    root=Root("disk.raw", 1 << 20, 1 << 30, "root", "devices"),
    own_cgroup=True,
    restart_code=133,
)


def test_an_order_survives_its_trip() -> None:
    assert Order.decode(ORDER.encode()) == ORDER


def test_a_message_survives_its_trip() -> None:
    assert read_message(message(Stage.FAILED, "why")) == (Stage.FAILED, "why")


@pytest.mark.parametrize("index", [0, 31, 32, 4000, MACHINES - 1])
def test_each_machine_has_a_network_of_its_own_below_10_213(index: int) -> None:
    own = Addresses(index)
    network = ip_network(own.network)
    assert network.subnet_of(ip_network("10.213.0.0/16"))  # type: ignore[arg-type]
    hosts = {own.host, own.machine, own.dns}
    assert len(hosts) == 3
    assert all(ip_address(host) in network for host in hosts)
    assert ip_address(own.loopback) in ip_network("127.0.0.0/8")
    assert len(own.link) <= 15


def test_no_two_machines_share_an_address_or_a_link() -> None:
    all_of_them = [Addresses(index) for index in range(MACHINES)]
    assert len({a.machine for a in all_of_them}) == MACHINES
    assert len({a.loopback for a in all_of_them}) == MACHINES
    assert len({a.link for a in all_of_them}) == MACHINES


def test_a_claimed_number_is_passed_over_until_it_is_let_go() -> None:
    first, holder = claim(MACHINES - 2)
    second, other = claim(first)
    with holder, other:
        assert second != first
    again, holder = claim(first)
    with holder:
        assert again == first
