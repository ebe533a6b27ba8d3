"""What is told of a service: what it asks for, what was measured, and nothing that was not."""

from __future__ import annotations

from amibuild.library.compile import service_facts
from amibuild.outputs.service_record import ServiceRecord, attack_table, service_record, table
from tests.unit.samples import MEASURED, plain_service, sample_service

FACTS = service_facts(sample_service(), "game-host")


def test_what_was_measured_stands_beside_what_was_asked_for() -> None:
    record = service_record(FACTS, MEASURED, 36_700_160)
    assert (record.user, record.exposure) == ("svc-minetest", 1.1)
    assert (record.memory_mib, record.memory_used_mib) == (1024, 33.4)
    assert record.installed_bytes == 36_700_160


def test_an_answer_is_more_than_an_open_port() -> None:
    record = service_record(FACTS, {"port.game": "listens", "port.admin": "connects"}, None)
    assert [port.seen for port in record.ports] == ["listens", "connects"]
    record = service_record(FACTS, {"answers.game": True, "port.admin": "connects"}, None)
    assert [port.seen for port in record.ports] == ["answers", "connects"]


def test_what_was_not_measured_is_not_told() -> None:
    record = service_record(FACTS, {}, None)
    assert (record.exposure, record.memory_used_mib, record.installed_bytes) == (None, None, None)
    assert [port.seen for port in record.ports] == [None, None]
    _, row = table({"minetest": record})
    assert row[2:6] == (
        "not measured",
        "game 30000/udp not seen, admin 30001/tcp not seen",
        "at most 1024 MiB",
        "",
    )


def test_a_secret_is_told_by_name_and_place_alone() -> None:
    (secret,) = service_record(FACTS, {}, None).secrets
    assert secret.model_dump() == {
        "name": "token",
        "id": "/game-host/minetest/token",
        "store": "secretsmanager",
    }


def test_it_comes_back_from_json_as_it_was() -> None:
    for record in (
        service_record(FACTS, MEASURED, 1),
        service_record(service_facts(plain_service()), {}, None),
    ):
        assert ServiceRecord.model_validate_json(record.model_dump_json()) == record


def test_one_without_a_volume_has_none_in_the_table() -> None:
    plain = service_record(service_facts(plain_service()), {}, None)
    head, row = table({"arena": plain})
    assert len(head) == len(row)
    assert row[-1] == "none"


def test_what_was_tried_from_inside_is_told_once_where_it_is_the_same_for_all() -> None:
    def tried(**came: str) -> ServiceRecord:
        return service_record(FACTS, {f"attack.{name}": text for name, text in came.items()}, None)

    services = {
        "one": tried(write="ProtectSystem (EROFS)", code="open: its runtime does"),
        "two": tried(write="ProtectSystem (EROFS)", code="MemoryDenyWriteExecute (EACCES)"),
        "three": tried(write="ProtectSystem (EROFS)", code="MemoryDenyWriteExecute (EACCES)"),
    }
    assert list(attack_table(services)) == [
        ("tried from inside", "refused by"),
        ("write", "ProtectSystem (EROFS)"),
        ("code", "one: open: its runtime does; MemoryDenyWriteExecute (EACCES)"),
    ]
    assert list(attack_table({"one": service_record(FACTS, {}, None)})) == []
