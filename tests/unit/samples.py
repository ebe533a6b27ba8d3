"""Manifests for the tests of what is written from them. Every value is fixed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from amibuild.library.compile import compile_service, service_facts
from amibuild.library.service import Service, ServiceFile
from amibuild.library.step import BuildStep, StepFile, StepKind
from amibuild.outputs.hardening_record import hardening_record
from amibuild.outputs.manifest import (
    Bake,
    Boot,
    Check,
    Hygiene,
    Image,
    Kind,
    Manifest,
    RecipeSource,
    Seconds,
    Source,
    Step,
    build_manifest,
    step_record,
)
from amibuild.outputs.service_record import service_record

MEASURED = {
    "exposure": 1.1,
    "memory_used_mib": 33.4,
    "port.game": "listens",
    "answers.game": True,
    "attack.write outside its state": "ProtectSystem, ReadOnlyPaths, ProtectHome, User (EROFS)",
    "attack.make machine code in its memory": "open: its runtime does",
}
JUDGED = {
    "lynis.environment": "container",
    "lynis.machine": "systemd-nspawn",
    "lynis.version": "3.1.4",
    "lynis.index": 76,
    "lynis.floor": 74,
    "lynis.tests": 242,
    "lynis.open": "BOOT-5122 KRNL-6000",
    "lynis.lost": "KRNL-6000",
}
BOOTED = {
    "lynis.environment": "virtual machine",
    "lynis.machine": "kvm",
    "lynis.version": "3.1.4",
    "lynis.index": 88,
    "lynis.floor": 85,
    "lynis.tests": 260,
    "lynis.open": "BOOT-5122",
    "lynis.lost": "",
    "secure_boot": "off",
    "exposure": "dbus=1.2 minetest=1.1",
    "openscap.profile": "anssi_bp28_high",
    "openscap.version": "1.4.2",
    "openscap.content": "0.1.76-1",
    "openscap.results": "fail=2 notapplicable=60 pass=300",
    "openscap.open": "partition_for_home partition_for_var",
}
STARTED = datetime(2026, 11, 22, 10, 15, 0, tzinfo=UTC)


def sample_service() -> Service:
    """With all that Terraform and the manifest tell of one."""
    body = {
        "purpose": "A voxel world.",
        "command": ["/usr/libexec/luanti/luantiserver", "--port", "{port.game}"],
        "memory_mib": 1024,
        "ports": [
            {"name": "game", "port": 30000, "protocol": "udp"},
            {"name": "admin", "port": 30001, "protocol": "tcp", "public": False},
        ],
        "data": {"volume": True, "size_gib": 10, "backup": ["world"]},
        "secrets": [{"name": "token", "from": "secretsmanager"}],
    }
    return Service("minetest", ServiceFile.model_validate(body))


def plain_service() -> Service:
    """With nothing that it need not have."""
    port = {"name": "game", "port": 5154, "protocol": "tcp", "public": False}
    body = {"purpose": "A.", "command": ["/bin/a"], "memory_mib": 64, "ports": [port]}
    return Service("arena", ServiceFile.model_validate(body))


def service_step(service: Service) -> BuildStep:
    return compile_service(service, "game-host")


def build_step(
    name: str = "os",
    script: str = "set -euo pipefail\necho hello\n",
    files: tuple[StepFile, ...] = (),
    environment: dict[str, str] | None = None,
    kind: StepKind = StepKind.PROVISIONER,
) -> BuildStep:
    return BuildStep(
        name=name,
        kind=kind,
        purpose=f"What {name} is for.",
        script=script,
        timeout_s=60,
        files=files,
        environment=environment or {},
    )


def step(
    built: BuildStep | None = None, kind: Kind | None = None, notes: tuple[str, ...] = ()
) -> Step:
    built = built or build_step()
    log = f".amibuild/logs/bake/{built.name}.log"
    return step_record(built, exit_code=0, seconds=8.4, log=log, kind=kind, notes=notes)


def default_steps() -> tuple[Step, ...]:
    unit = b"[Service]\nExecStart=/usr/games/luantiserver\nUser=svc-minetest\n"
    service = build_step(
        "minetest",
        "set -euo pipefail\ninstall -m 644 files/minetest.service /etc/systemd/system/\n",
        (StepFile("files/minetest.service", unit), StepFile("files/icon.png", b"\x89PNG\r\n\x00")),
        {"PORT": "30000", "MOTD": "it's `free` for $0"},
        StepKind.SERVICE,
    )
    seal = build_step("seal", "set -euo pipefail\n: > /etc/machine-id\n")
    os = step(notes=("an-agent is absent: it has no package here",))
    return os, step(service), step(seal, Kind.SEAL)


def manifest(
    version: str = "2026.11.22.1",
    *,
    image_id: str = "ami-0a1b2c3d4e5f60718",
    days: int = 0,
    steps: tuple[Step, ...] | None = None,
    checks: tuple[Check, ...] | None = None,
) -> Manifest:
    started = STARTED + timedelta(days=days)
    facts = service_facts(sample_service(), "game-host")
    passed = Check(name="os/test_os.py::test_time_is_synchronised", outcome="passed", seconds=0.2)
    return build_manifest(
        image=Image(
            id=image_id,
            name=f"game-host-{version}",
            image="game-host",
            version=version,
            region="us-east-1",
            size_gib=8,
            snapshot_ids=("snap-0123456789abcdef0",),
        ),
        digest="3f" * 32,
        bake=Bake(
            id="20261122-101500-a1b2c3",
            started=started,
            ended=started + timedelta(seconds=96),
            target="local",
            user="admin",
            host="build-1",
            amibuild_version="0.1.0",
        ),
        recipe=RecipeSource(name="game-host", path="amibuild.toml", commit="9f8e7d6"),
        source=Source(
            ami_id="ami-00000000000000001",
            name="debian-13-amd64-20261122-local",
            owner="136693071363",
            reference="/aws/service/debian/release/13/latest/amd64",
            boot=Boot(seconds=9.5, machine="qemu"),
        ),
        steps=default_steps() if steps is None else steps,
        packages={"luanti-server": "5.10.0-1", "bash": "5.2.37-2"},
        platform_packages=["qemu-guest-agent"],
        services={"minetest": service_record(facts, MEASURED, 36_700_160)},
        units_enabled=["minetest.service", "cron.service"],
        users=["root", "svc-minetest"],
        hygiene=Hygiene(passed=("machine-id is empty", "no ssh host keys")),
        checks=(passed,) if checks is None else checks,
        boot=Boot(seconds=7.25, machine="qemu"),
        hardening=hardening_record(BOOTED, JUDGED),
        seconds=Seconds(total=96.4, steps={"launch": 1.5, "provision": 32.0, "verify": 61.25}),
        sizes={"root_used_bytes": 812_000_000, "bundle_bytes": 4096},
    )
