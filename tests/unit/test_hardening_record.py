"""What the manifest says of the hardening as a whole, from what its checks measured."""

from __future__ import annotations

import pytest

from amibuild.outputs.hardening_record import hardening_record
from amibuild.outputs.runbook import render
from tests.unit.samples import BOOTED, JUDGED, manifest

WITHOUT_LYNIS = {name: value for name, value in BOOTED.items() if not name.startswith("lynis.")}


def test_the_fresh_boots_figure_stands_first_and_the_builders_beside_it() -> None:
    record = hardening_record(BOOTED, JUDGED)
    assert record is not None and record.lynis is not None and record.builder is not None
    assert (record.environment, record.machine) == ("virtual machine", "kvm")
    assert (record.lynis.index, record.lynis.floor) == (88, 85)
    assert (record.builder.environment, record.builder.machine) == ("container", "systemd-nspawn")
    assert record.builder.lynis.lost_to_host_kernel == ("KRNL-6000",)


def test_the_builders_stands_there_where_no_other_was_judged() -> None:
    record = hardening_record(WITHOUT_LYNIS, JUDGED)
    assert record is not None and record.lynis is not None
    assert (record.environment, record.machine) == ("container", "systemd-nspawn")
    assert record.lynis.index == 76
    assert record.builder is None
    assert record.exposure == {"dbus": 1.2, "minetest": 1.1}


@pytest.mark.parametrize("kept", ["secure_boot", "exposure", "openscap."])
def test_without_lynis_the_rest_is_kept(kept: str) -> None:
    measures = {name: value for name, value in BOOTED.items() if name.startswith(kept)}
    record = hardening_record(measures, {})
    assert record is not None
    assert (record.lynis, record.environment, record.machine, record.builder) == (None,) * 4
    whole = hardening_record(BOOTED, JUDGED)
    assert whole is not None
    name = kept.removesuffix(".")
    assert getattr(record, name) == getattr(whole, name)


def test_a_services_own_measures_are_no_record() -> None:
    assert hardening_record({"exposure": 1.1, "memory_used_mib": 33.4}, {}) is None


def test_the_runbook_has_a_row_for_each_that_was_judged() -> None:
    def rows(booted: dict[str, object], built: dict[str, object]) -> list[str]:
        record = hardening_record(booted, built)
        text = render([manifest().model_copy(update={"hardening": record})])
        return [row for row in text.splitlines() if row.startswith(("| Lynis", "| OpenSCAP"))]

    builder = (
        "76 of 100 in a container (systemd-nspawn), at least 74; "
        "of its tests `KRNL-6000` ask the host's kernel |"
    )
    scap = "| OpenSCAP | 2 fail, 60 notapplicable, 300 pass, of `anssi_bp28_high` |"
    fresh = "| Lynis | 88 of 100 in a virtual machine (kvm), at least 85 |"
    assert rows(BOOTED, JUDGED) == [fresh, f"| Lynis on the builder | {builder}", scap]
    assert rows(WITHOUT_LYNIS, JUDGED) == [f"| Lynis | {builder}", scap]
    assert rows(WITHOUT_LYNIS, {}) == [scap]
