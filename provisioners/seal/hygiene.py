"""What must not be in a finished image, looked for on its disk while nothing runs from it.

    python3 hygiene.py ROOT [DISK PARTITION KNOWN [PUBLIC...]]

ROOT is where the image's root file system is mounted, read-only. With DISK every block of that is
looked through as well, see blocks.py; PARTITION is the root file system's, and KNOWN a file with
fingerprints of what the bake knew. Private keys below a PUBLIC path are waived. Prints JSON:
{"passed": [rule, ...], "failed": [{"rule": ..., "path": ..., "detail": ...}, ...], "waived": as it}
Needs nothing but Python 3.9. Never follows a link: it would lead to this machine's own files.
"""

import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

Found = Iterator[tuple[str, str]]
Rule = Callable[[Path], Found]

RULES: dict[str, Rule] = {}
HISTORIES = (".*_history", ".lesshst", ".viminfo", ".wget-hsts", ".sqlite_history")
CREDENTIALS = (
    ".aws/credentials",
    ".docker/config.json",
    ".git-credentials",
    ".netrc",
    ".pgpass",
    ".pypirc",
)
CLOUD_INIT_WRITES = (
    "etc/netplan",
    "etc/network/interfaces.d",
    "etc/ssh/sshd_config.d",
    "etc/sudoers.d",
    "etc/systemd/network",
)
GENERIC_HOSTNAMES = ("", "localhost", "debian")
FIRST_PERSON = 1000
NOBODY = 65534


def rule(name: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES[name] = function
        return function

    return register


@rule("the machine id is empty")
def machine_id(root: Path) -> Found:
    path = root / "etc/machine-id"
    if not is_file(path):
        yield "/etc/machine-id", "is missing, and must be an empty file"
    elif path.lstat().st_size:
        yield "/etc/machine-id", "holds the id of the builder"
    path = root / "var/lib/dbus/machine-id"
    if is_file(path):
        yield "/var/lib/dbus/machine-id", "is a file of its own, and must be a link or absent"


@rule("no ssh host keys")
def host_keys(root: Path) -> Found:
    yield from each(root, "etc/ssh", "ssh_host_*", "every machine makes its own")


@rule("no authorized keys")
def authorized_keys(root: Path) -> Found:
    for home in homes(root):
        yield from each(root, f"{home}/.ssh", "authorized_keys*", "lets somebody in")
    yield from each(root, "etc/ssh", "authorized_keys*", "lets somebody in")


@rule("no private keys and credentials")
def credentials(root: Path) -> Found:
    for home in homes(root):
        for path in files_in(root, f"{home}/.ssh"):
            if path.name.startswith("id_") and path.suffix != ".pub":
                yield shown(root, path), "is a private key"
        for name in CREDENTIALS:
            if is_file(root / home / name):
                yield f"/{home}/{name}", "holds credentials"
    yield from each(root, "etc/ssl/private", "ssl-cert-snakeoil.key", "every machine makes its own")


@rule("no shell histories")
def histories(root: Path) -> Found:
    for home in homes(root):
        for pattern in HISTORIES:
            yield from each(root, home, pattern, "tells what somebody typed")


@rule("no random seed")
def random_seed(root: Path) -> Found:
    for path in (
        "var/lib/systemd/random-seed",
        "var/lib/systemd/credential.secret",
        "boot/efi/loader/random-seed",
    ):
        if os.path.lexists(root / path):
            yield f"/{path}", "would be the same on all machines"


@rule("no network leases")
def leases(root: Path) -> Found:
    for folder in ("var/lib/dhcp", "var/lib/dhcpcd", "var/lib/NetworkManager"):
        for pattern in ("*lease*", "duid*", "secret*"):
            yield from each(root, folder, pattern, "belongs to the builder")


@rule("no traces of cloud-init's first boot")
def cloud_init(root: Path) -> Found:
    for name in ("instance", "instances", "data", "sem", "seed"):
        path = root / "var/lib/cloud" / name
        if path.is_symlink() or is_file(path) or any(True for _ in entries(path)):
            yield f"/var/lib/cloud/{name}", "cloud-init would take the machine for the builder"
    per_boot = "var/lib/cloud/scripts/per-boot/amibuild-lease"
    if is_file(root / per_boot):
        yield f"/{per_boot}", "each machine would end by itself"
    for folder in CLOUD_INIT_WRITES:
        yield from each(root, folder, "[0-9]0-cloud-init*", "was written for the builder")


@rule("no agent registration")
def agent(root: Path) -> Found:
    for pattern in ("i-*", "Vault"):
        yield from each(root, "var/lib/amazon/ssm", pattern, "registers as the builder")


@rule("no package lists and archives")
def packages(root: Path) -> Found:
    for path in files_in(root, "var/lib/apt/lists"):
        if path.name != "lock":
            yield shown(root, path), "is out of date before the first boot"
    yield from each(root, "var/cache/apt/archives", "*.deb", "is installed already")


@rule("no journal and no logs")
def logs(root: Path) -> Found:
    for path in files_below(root / "var/log"):
        if "journal" in path.relative_to(root / "var/log").parts[:1]:
            yield shown(root, path), "is the builder's journal"
        elif path.lstat().st_size:
            yield shown(root, path), f"has {path.lstat().st_size} bytes of the builder's log"


@rule("no records of logins and timers")
def records(root: Path) -> Found:
    for folder, pattern in (
        ("var/lib/wtmpdb", "*"),
        ("var/lib/lastlog", "*"),
        ("var/lib/systemd/timers", "stamp-*"),
    ):
        yield from each(root, folder, pattern, "tells of the builder's days")


@rule("no memory of programs")
def memory(root: Path) -> Found:
    for folder in ("var/lib/systemd/coredump", "var/lib/systemd/pstore", "var/crash"):
        for path in entries(root / folder):
            yield shown(root, path), "may hold whatever a program knew"


@rule("no service has made its first password")
def first_passwords(root: Path) -> Found:
    for path in entries(root / "var/lib"):
        yield from each(root, f"var/lib/{path.name}", "first-password*", "is the same everywhere")


@rule("no temporary files")
def temporary(root: Path) -> Found:
    for folder in ("tmp", "var/tmp"):
        for path in entries(root / folder):
            yield shown(root, path), "was left behind"


@rule("no users but the system's")
def users(root: Path) -> Found:
    known = set()
    for name, _, uid, *_ in table(root, "etc/passwd"):
        known.add(name)
        if FIRST_PERSON <= int(uid) < NOBODY:
            yield "/etc/passwd", f"{name} has the id {uid}"
    for path in entries(root / "home"):
        if path.name not in known and path.name != "lost+found":
            yield shown(root, path), "belongs to nobody"


@rule("no password")
def passwords(root: Path) -> Found:
    for file in ("etc/shadow", "etc/shadow-"):
        for name, password, *_ in table(root, file):
            if not password:
                yield f"/{file}", f"{name} may log in without a password"
            elif password.strip("!*"):
                yield f"/{file}", f"{name} has a password"


@rule("a generic host name")
def hostname(root: Path) -> Found:
    name = text(root / "etc/hostname").strip()
    if name not in GENERIC_HOSTNAMES:
        yield "/etc/hostname", f"is {name}"
    for line in text(root / "etc/hosts").splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if address == "127.0.1.1" and not set(names) <= set(GENERIC_HOSTNAMES):
            yield "/etc/hosts", f"names the builder: {' '.join(names)}"


@rule("no policy that keeps services from starting")
def policy(root: Path) -> Found:
    yield from each(root, "usr/sbin", "policy-rc.d", "was for the time of installation")


@rule("no files of the bake")
def bake_files(root: Path) -> Found:
    for folder in ("root", "opt", "srv", "var/lib", "usr/local/bin", "etc/systemd/system"):
        yield from each(root, folder, "amibuild*", "is the bake's own")


@rule("no swap")
def swap(root: Path) -> Found:
    for line in text(root / "etc/fstab").splitlines():
        fields = line.partition("#")[0].split()
        if len(fields) > 2 and fields[2] == "swap":
            yield "/etc/fstab", f"swaps to {fields[0]}"
    yield from each(root, "", "swap*", "may hold the builder's memory")


def inspect(root: Path) -> dict[str, list[object]]:
    """All rules, in their order. A rule that can't be followed has failed."""
    passed: list[object] = []
    failed: list[object] = []
    for name, function in RULES.items():
        try:
            found = list(function(root))
        except (OSError, ValueError) as error:
            found = [("/", f"can't be looked at: {error}")]
        failed += [{"rule": name, "path": path, "detail": detail} for path, detail in found]
        if not found:
            passed.append(name)
    return {"passed": passed, "failed": failed}


def each(root: Path, folder: str, pattern: str, detail: str) -> Found:
    """What a folder holds by names like `pattern`, empty or not."""
    for path in entries(root / folder):
        if fnmatchcase(path.name, pattern):
            yield shown(root, path), detail


def homes(root: Path) -> list[str]:
    """Home folders, relative to the root: root's, those below /home, and those of users."""
    found = {"root", *(f"home/{path.name}" for path in entries(root / "home"))}
    found |= {fields[5].strip("/") for fields in table(root, "etc/passwd") if len(fields) > 5}
    return sorted(home for home in found if home)


def table(root: Path, path: str) -> list[list[str]]:
    return [line.split(":") for line in text(root / path).splitlines() if ":" in line]


def text(path: Path) -> str:
    return path.read_text(errors="replace") if is_file(path) else ""


def is_file(path: Path) -> bool:
    return os.path.lexists(path) and stat.S_ISREG(path.lstat().st_mode)


def entries(folder: Path) -> Iterator[Path]:
    """What is in a folder; nothing when it is a link or is not there."""
    if os.path.lexists(folder) and stat.S_ISDIR(folder.lstat().st_mode):
        yield from sorted(folder.iterdir())


def files_in(root: Path, folder: str) -> Iterator[Path]:
    return (path for path in entries(root / folder) if is_file(path))


def files_below(folder: Path) -> Iterator[Path]:
    for path in entries(folder):
        if is_file(path):
            yield path
        else:
            yield from files_below(path)


def shown(root: Path, path: Path) -> str:
    return f"/{path.relative_to(root)}"


def main() -> None:
    if len(sys.argv) != 2 and len(sys.argv) < 5:
        sys.exit(f"usage: {sys.argv[0]} ROOT [DISK PARTITION KNOWN [PUBLIC...]]")
    root = Path(sys.argv[1])
    found = inspect(root)
    if sys.argv[2:]:
        import blocks

        disk, partition, known, *public = sys.argv[2:]
        in_blocks = blocks.inspect(disk, partition, root, Path(known).read_text(), public)
        found = {kind: [*found.get(kind, ()), *some] for kind, some in in_blocks.items()}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
