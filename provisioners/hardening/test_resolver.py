"""The resolver asks the name server and nobody else."""

from testinfra.host import Host


def test_it_neither_asks_nor_answers_its_neighbours(host: Host) -> None:
    assert host.check_output("ss -Htuln 'sport = :5355 or sport = :5353'") == ""
    said = host.check_output("resolvectl --no-pager status").splitlines()
    protocols = [line for line in said if "Protocols:" in line]
    assert protocols
    assert all("-LLMNR" in line and "-mDNS" in line for line in protocols)
