"""What the machine says, read: connections of ss, packets of nft, titles' answers, files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from idle_stop.decision import Decision, Memory, Reason
from idle_stop.flows import Known, Traffic
from idle_stop.machine import Answer, CannotTell, Machine, ports, run
from idle_stop.nft import Packets, read_table, table
from idle_stop.program import log_line, read_memory, read_rules, write_memory
from idle_stop.windows import read_window

SIZE = 4  # of the kernel's sets, which are larger
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SERVICES: dict[str, dict[str, Any]] = {
    "arena": {"unit": "arena.service", "players": {"tcp": [5154], "udp": []}},
    "world": {"unit": "world.service", "players": {"tcp": [], "udp": [30000]}},
    "pages": {"unit": "pages.service", "players": {"http": {"port": 8081}}},
    "asked": {"unit": "asked.service", "players": {"command": ["/usr/bin/players"]}},
}
# As `ss -HtinO state established` of iproute2 6.1 and 6.15 writes them, some words left out.
SS = """\
0      0      198.51.100.7:5154 203.0.113.5:59298 cubic rto:204 rtt:0.013/0.006 bytes_sent:905 \
bytes_acked:900 bytes_received:500 segs_out:9 send 201649230769bps lastsnd:8 lastrcv:1500 \
pacing_rate 576283534880bps app_limited
0      0      [::ffff:198.51.100.7]:5154 [::ffff:203.0.113.6]:40000 cubic rto:204 lastrcv:250000
0      0      [2001:db8::7]:5154 [2001:db8::5]:40001 cubic bytes_acked:3 bytes_received:4 lastrcv:0
0      0      127.0.0.1:5154 127.0.0.1:40000 cubic bytes_acked:3 bytes_received:4 lastrcv:0
0      0      [::1]:5154 [::1]:40000 cubic bytes_acked:3 bytes_received:4 lastrcv:0
0      0      198.51.100.7:5154 198.51.100.7:40000 cubic bytes_acked:3 bytes_received:4 lastrcv:0
0      0      198.51.100.7:22 203.0.113.5:59300 cubic bytes_acked:3 bytes_received:4 lastrcv:0
0      0      198.51.100.7:40000 203.0.113.5:5154 cubic bytes_acked:3 bytes_received:4 lastrcv:0
"""


def listed(sets: Mapping[str, Mapping[tuple[str, int, int], int]], ports: Sequence[int]) -> str:
    """As `nft --json list table` of nftables 1.0.6 and 1.1.3 writes it."""

    def element(peer: tuple[str, int, int], packets: int) -> dict[str, Any]:
        counter = {"packets": packets, "bytes": packets * 29}
        return {"elem": {"val": {"concat": list(peer)}, "expires": 179, "counter": counter}}

    entries: list[dict[str, Any]] = [{"metainfo": {"json_schema_version": 1}}]
    entries.append({"set": {"name": "ports", "type": "inet_service", "elem": list(ports)}})
    for name in ("said4", "heard4", "said6", "heard6", "peers4", "peers6"):
        elements = [element(peer, packets) for peer, packets in sets.get(name, {}).items()]
        entry: dict[str, Any] = {"name": name, "size": SIZE, "flags": ["timeout"], "timeout": 180}
        entries.append({"set": {**entry, **({"elem": elements} if elements else {})}})
    return json.dumps({"nftables": entries})


class Commands:
    """Answers by the first words of a command; anything else is no command here."""

    def __init__(self, answers: Mapping[str, str | Answer]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []

    def __call__(self, words: Sequence[str], stdin: str, timeout_s: float) -> Answer:
        said = " ".join(words)
        self.asked.append((said, stdin))
        for start, answer in self.answers.items():
            if said.startswith(start):
                return Answer(0, answer, "") if isinstance(answer, str) else answer
        raise CannotTell(f"{words[0]}: not there")


def only(*names: str) -> dict[str, dict[str, Any]]:
    return {name: SERVICES[name] for name in names}


# Commands


def test_a_command_is_run_and_its_answer_read() -> None:
    assert run(("sh", "-c", "cat; echo no >&2; exit 3"), "given", 10) == Answer(3, "given", "no")


@pytest.mark.parametrize(
    ("words", "told"), [(("/no/program",), "No such file"), (("sleep", "60"), "timed out")]
)
def test_a_command_that_is_not_there_or_hangs_cannot_tell(words: Sequence[str], told: str) -> None:
    with pytest.raises(CannotTell, match=told):
        run(words, "", 0.05)


# TCP


def test_connections_from_elsewhere_to_a_services_port_are_traffic() -> None:
    machine = Machine(run=Commands({"ss -HtinO state established": SS}))
    traffic, hidden = machine.traffic(only("arena"), change=True)
    assert traffic == [
        Traffic("arena", "203.0.113.5:59298>5154", False, heard=500, said=900, silent_s=1.5),
        Traffic("arena", "[::ffff:203.0.113.6]:40000>5154", False, heard=0, said=0, silent_s=250),
        Traffic("arena", "[2001:db8::5]:40001>5154", False, heard=4, said=3, silent_s=0),
    ]
    assert hidden == {}


def test_without_ss_nobody_knows_who_is_connected() -> None:
    machine = Machine(run=Commands({"ss": Answer(1, "", "no netlink")}))
    assert machine.traffic(only("arena"), change=True) == ([], {"arena": None})
    assert machine.notes == ["ss: no netlink"]


# UDP


def test_packets_of_answered_peers_are_traffic() -> None:
    first, second = ("203.0.113.5", 50000, 30000), ("203.0.113.6", 50001, 30000)
    last = ("2001:db8::5", 50002, 30000)
    sets = {"said4": {first: 900, second: 1}, "heard4": {first: 600}, "said6": {last: 7}}
    machine = Machine(run=Commands({"nft --json list table": listed(sets, [30000])}))
    traffic, hidden = machine.traffic(only("world"), change=True)
    assert traffic == [
        Traffic("world", "203.0.113.5:50000>30000", True, heard=600, said=900),
        Traffic("world", "203.0.113.6:50001>30000", True, heard=0, said=1),
        Traffic("world", "2001:db8::5:50002>30000", True, heard=0, said=7),
    ]
    assert hidden == {}


@pytest.mark.parametrize(
    "before", [Answer(1, "", "No such file or directory"), listed({}, [1]), "{}", "none"]
)
def test_the_table_is_put_there_when_it_is_not_and_then_nobody_knows_yet(
    before: str | Answer,
) -> None:
    commands = Commands({"nft --json list table": before, "nft -f -": ""})
    machine = Machine(run=commands)
    assert machine.traffic(only("world"), change=True) == ([], {"world": None})
    assert commands.asked[-1] == ("nft -f -", table([30000]))
    assert "UDP packets are counted from now on" in machine.notes


def test_a_dry_run_puts_no_table_there() -> None:
    commands = Commands({"nft --json list table": Answer(1, "", "")})
    machine = Machine(run=commands)
    assert machine.traffic(only("world"), change=False) == ([], {"world": None})
    assert len(commands.asked) == 1


def test_a_table_that_is_full_may_hide_players_but_hides_none_that_are_in_it() -> None:
    peers = {("203.0.113.5", port, 30000): 9 for port in range(SIZE)}
    answer = listed({"said4": peers, "heard4": peers}, [30000])
    machine = Machine(run=Commands({"nft --json list table": answer}))
    traffic, hidden = machine.traffic(only("world"), change=True)
    assert (len(traffic), hidden) == (SIZE, {"world": None})
    assert machine.notes == ["there are more UDP peers than can be counted"]


def test_without_services_of_a_protocol_it_is_not_looked_at() -> None:
    commands = Commands({})
    services = only("pages", "asked")
    assert Machine(run=commands).traffic(services, change=True) == ([], {})
    assert commands.asked == []


def test_two_titles_on_one_machine_are_told_apart_by_their_ports() -> None:
    assert ports(SERVICES, "tcp") == {5154: "arena"}
    assert ports(SERVICES, "udp") == {30000: "world"}


def test_peers_without_an_answer_are_in_no_set_that_counts() -> None:
    sets = {"heard4": {("203.0.113.5", 1, 30000): 4}}
    assert read_table(json.loads(listed(sets, [30000]))).packets == ()
    sets["said4"] = {("203.0.113.5", 1, 30000): 2}
    assert read_table(json.loads(listed(sets, [30000]))).packets == (
        Packets("203.0.113.5", 1, 30000, heard=4, said=2),
    )


# Titles' own queries


def told(counted: str | Answer, **states: str) -> tuple[dict[str, int | None], list[str]]:
    shown = {
        f"systemctl show --property=ActiveState --value {unit}.service": state
        for unit, state in {"pages": "active", "asked": "active", **states}.items()
    }
    machine = Machine(run=Commands({**shown, "/usr/lib/amibuild/count-players": counted}))
    return machine.told(SERVICES), machine.notes


def test_a_service_with_its_own_query_tells_and_others_are_left_to_their_traffic() -> None:
    answer = '{"pages": 3, "asked": 0}'
    assert told(answer) == ({"arena": 0, "world": 0, "pages": 3, "asked": 0}, [])


def test_one_that_does_not_answer_cannot_tell_and_why_is_noted() -> None:
    answer = Answer(0, '{"pages": null, "asked": 2}', "pages: Connection refused")
    assert told(answer) == (
        {"arena": 0, "world": 0, "pages": None, "asked": 2},
        ["pages: Connection refused"],
    )


@pytest.mark.parametrize("answer", ["", "3", "[]", Answer(1, "", "broken")])
def test_without_an_answer_none_of_them_can_tell(answer: str | Answer) -> None:
    numbers, notes = told(answer)
    assert (numbers["pages"], numbers["asked"]) == (None, None)
    assert notes


@pytest.mark.parametrize("number", ["-1", '"2"', "1.5", "{}"])
def test_what_is_no_number_of_players_is_no_answer(number: str) -> None:
    numbers, _ = told(f'{{"pages": {number}, "asked": 0}}')
    assert (numbers["pages"], numbers["asked"]) == (None, 0)


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_a_service_that_does_not_run_has_no_players_and_is_not_asked(state: str) -> None:
    numbers, notes = told('{"asked": 1}', pages=state)
    assert (numbers["pages"], numbers["asked"], notes) == (0, 1, [])


def test_one_that_starts_is_asked() -> None:
    assert told('{"pages": null, "asked": 1}', pages="activating")[0]["pages"] is None


# The machine


def test_it_booted_when_systemd_started() -> None:
    show = "systemctl show --property=UserspaceTimestampMonotonic"
    assert Machine(run=Commands({show: "11262501482\n"})).booted_s() == 11262.501482
    blind = Machine(run=Commands({}))
    assert blind.booted_s() == 0.0
    assert len(blind.notes) == 1


def test_the_services_are_those_whose_facts_are_there(tmp_path: Path) -> None:
    folder = tmp_path / "etc/amibuild/services"
    assert Machine(tmp_path).services() == {}
    folder.mkdir(parents=True)
    for name in ("arena", "world"):
        (folder / f"{name}.json").write_text(json.dumps(SERVICES[name]))
    assert Machine(tmp_path).services() == only("arena", "world")
    (folder / "world.json").write_text('{"name": ')
    with pytest.raises(ValueError, match="Expecting value"):
        Machine(tmp_path).services()


@pytest.mark.parametrize("name", ["run/amibuild/keep-awake", "etc/amibuild/keep-awake"])
def test_either_file_holds_it_and_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    machine = Machine(tmp_path)
    assert not machine.kept_awake(NOW)
    path.write_text("2026-11-23T11:59Z")
    assert not machine.kept_awake(NOW)
    path.write_text("2026-11-23T12:01Z")
    assert machine.kept_awake(NOW)
    path.write_bytes(b"\xff\xfe")
    assert machine.kept_awake(NOW)
    assert machine.notes == [f"held by /{name}"] * 2


def test_a_folder_of_that_name_holds_it_too(tmp_path: Path) -> None:
    (tmp_path / "run/amibuild/keep-awake").mkdir(parents=True)
    assert Machine(tmp_path).kept_awake(NOW)


# The program's files


def test_settings_are_read_and_have_defaults() -> None:
    text = "minutes = 45\ndry_run = true\nmaintenance = [\n    'Mon..Fri 02:00-04:00',\n]\n"
    rules = read_rules(text)
    assert (rules.minutes, rules.dry_run) == (45.0, True)
    assert rules.maintenance == (read_window("Mon..Fri 02:00-04:00"),)
    assert (read_rules("").minutes, read_rules("").dry_run) == (30.0, False)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("minutes = 0", "minutes must be a number above 0"),
        ("minutes = true", "minutes must be a number above 0"),
        ("minutes = nan", "minutes must be a number above 0"),
        ('minutes = "30"', "minutes must be a number above 0"),
        ("dry_run = 1", "dry_run must be true or false"),
        ('maintenance = "02:00-04:00"', "maintenance must be a list of strings"),
        ('maintenance = ["daily"]', "is not a window such as"),
        ("minute = 3", "there is no setting minute"),
        ("minutes =", "Invalid value"),
    ],
)
def test_settings_that_mean_nothing_are_refused(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        read_rules(text)


def test_what_a_look_leaves_is_read_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "idle-stop/memory.json"
    memory = Memory(
        looked_s=12.5,
        busy_s=3.0,
        silent={"world": 5.0},
        known={"udp 203.0.113.5:50000>30000": Known(600, 900, True)},
        newcomer_looks=2,
    )
    assert read_memory(path) is None
    write_memory(path, memory)
    assert read_memory(path) == memory


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"known": {}, "old": 1}', '{"known": {"a": 3}}', '{"known": []}']
)
def test_a_memory_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "memory.json"
    path.write_text(text)
    assert read_memory(path) is None


def test_a_decision_is_one_line_of_json() -> None:
    decision = Decision(True, Reason.NOBODY, {"arena": 0, "world": None}, 1, 1806.0, 0.0)
    line = log_line(decision, ["nft: no\nsuch table"], dry_run=False)
    assert "\n" not in line
    assert json.loads(line) == {
        "decision": "power-off",
        "reason": "nobody",
        "players": {"arena": 0, "world": None},
        "newcomers": 1,
        "idle_minutes": 30.1,
        "minutes_left": 0.0,
        "notes": ["nft: no\nsuch table"],
    }
    assert json.loads(log_line(decision, [], dry_run=True))["decision"] == "would-power-off"
