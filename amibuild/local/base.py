"""Makes the local base image: Debian 13 on a bootable disk, known to EC2 users by its parameter.

The disk is made once by mmdebstrap and kept in a cache beside the store, so that a new or emptied
store has its base image in a second. What it consists of is in `debian.py`; when that changes, a
new image is made, and the old one stays for what was built from it.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import shlex
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from amibuild import proc
from amibuild.errors import HostError
from amibuild.local import debian, disk, host, private
from amibuild.local.durable import on_disk, write_whole
from amibuild.local.leftovers import remove_foreign
from amibuild.local.records import ImageRecord, ParameterRecord, SnapshotRecord
from amibuild.local.store import Store

log = logging.getLogger(__name__)

Told = Callable[[str], None]
LOCK = "lock"
PROGRAMS = (
    *("setpriv", "unshare", "mmdebstrap", "grub-mkimage"),
    *("mke2fs", "mkfs.vfat", "mmd", "mcopy"),
)
# What mmdebstrap says that means something to a person, and what we say instead.
_STORY = {
    "running apt-get update": "reading Debian's package lists",
    "downloading packages": "downloading packages",
    "extracting archives": "unpacking the first packages",
    "installing essential": "installing the essential packages",
    "installing remaining": "installing kernel, systemd, cloud-init and the guest agent",
    "cleaning package lists": "cleaning up",
}


class Cached(BaseModel):
    """What is said about a cached disk, in the file beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made: datetime
    blocks_sha256: str


def ensure_base(store: Store, base_dir: Path, *, progress: Told) -> ImageRecord:
    """The base image of today's definition, made if there is none; its parameter names it.

    Takes a second once it is cached, a minute and a network before.
    Raises: HostError, with what is missing on this host; nothing half-made is left.
    """
    image = _find(store)
    if image is None:
        with on_disk(base_dir):
            base_dir.mkdir(parents=True, exist_ok=True)
        with _alone(base_dir, progress):
            image = _register(store, base_dir, progress)
    _name_it(store, image)
    return image


def _find(store: Store) -> ImageRecord | None:
    """The image of this definition, if its disk is still whole."""
    for image in store.images():
        ours = image.owner == debian.OWNER and image.facts.get("definition") == debian.definition()
        if ours and image.snapshot_id and store.is_whole(image.snapshot_id):
            return image
    return None


def _register(store: Store, base_dir: Path, progress: Told) -> ImageRecord:
    raw = base_dir / f"debian-{debian.RELEASE}-{debian.definition()[:16]}.raw"
    snapshot = _from_cache(store, raw)
    if snapshot is None:
        _forget(base_dir)
        progress("making the base image, this once: about a minute")
        made = _make(raw, progress)
        progress("keeping the base image")
        snapshot = _capture(store, raw, made)
        said = Cached(made=made, blocks_sha256=snapshot.blocks_sha256).model_dump_json()
        with on_disk(base_dir):
            write_whole(raw.with_suffix(".json"), said.encode(), temporary=base_dir)
    image = _image(store, snapshot)
    store.put_image(image)
    _drop_unnamed(store)
    return image


def _drop_unnamed(store: Store) -> None:
    """Snapshots of ours that a killed maker, or an image made anew, left without an image."""
    named = {image.snapshot_id for image in store.images()}
    for snapshot in store.snapshots():
        if snapshot.owner == debian.OWNER and snapshot.id not in named:
            store.delete_snapshot(snapshot.id)


def _from_cache(store: Store, raw: Path) -> SnapshotRecord | None:
    """None when there is no cached disk, or it is not as it was made."""
    cached = _read(raw.with_suffix(".json"))
    if cached is None or not raw.exists():
        return None
    snapshot = _capture(store, raw, cached.made)
    if snapshot.blocks_sha256 == cached.blocks_sha256:
        return snapshot
    log.warning("%s is not as it was made: it is made again", raw)
    store.delete_snapshot(snapshot.id)
    store.collect()
    return None


def _read(said: Path) -> Cached | None:
    try:
        return Cached.model_validate_json(said.read_bytes())
    except (OSError, ValidationError):
        return None


def _capture(store: Store, raw: Path, made: datetime) -> SnapshotRecord:
    return store.capture(
        raw,
        f"snap-{secrets.token_hex(9)[:17]}",
        volume_size_gib=debian.SIZE_GIB,
        owner=debian.OWNER,
        description=f"Debian {debian.RELEASE} {debian.ARCHITECTURE}",
        started=made,
    )


def _image(store: Store, snapshot: SnapshotRecord) -> ImageRecord:
    """Its id follows from its content: the same disk is the same AMI after a reset, too."""
    made = snapshot.started
    content = hashlib.sha256(f"{snapshot.blocks_sha256} {debian.definition()}".encode())
    image_id = f"ami-{content.hexdigest()[:17]}"
    name = f"debian-{debian.RELEASE}-{debian.ARCHITECTURE}-{made:%Y%m%d}-local"
    taken = {image.name for image in store.images() if image.id != image_id}
    names = (name, *(f"{name}-{number}" for number in range(2, 1000)))
    return ImageRecord(
        id=image_id,
        name=next(n for n in names if n not in taken),
        description=f"Debian {debian.RELEASE} ({debian.ARCHITECTURE}), made on this machine",
        owner=debian.OWNER,
        created=made,
        imds_support="v2.0",
        snapshot_id=snapshot.id,
        volume_size_gib=debian.SIZE_GIB,
        facts={
            "platform_agent": debian.PLATFORM_AGENT,
            "made": f"{made:%Y-%m-%d}",
            "definition": debian.definition(),
        },
    )


def _name_it(store: Store, image: ImageRecord) -> None:
    now = datetime.now(UTC)
    known = store.parameter(debian.PARAMETER)
    if known is None:
        known = ParameterRecord(
            name=debian.PARAMETER,
            value=image.id,
            version=1,
            data_type="aws:ec2:image",
            last_modified=now,
        )
    elif known.value != image.id:
        known = known.changed(image.id, now)
    else:
        return
    store.put_parameter(known)


def _make(raw: Path, progress: Told) -> datetime:
    """Makes the disk and moves it to `raw` once it is whole; the moment that it is dated."""
    missing = [program for program in PROGRAMS if proc.which(program) is None]
    if missing:
        raise HostError(
            f"the base image can't be made without {', '.join(missing)}", hint="amibuild doctor"
        )
    for fault in host.architecture_faults():
        raise HostError(fault.reason, hint="bake with --target aws")
    private.check()
    told = os.environ.get("SOURCE_DATE_EPOCH", "")
    epoch = int(told) if told.isdecimal() else int(time.time())
    seed = uuid.UUID(hex=debian.definition()[:32])
    with on_disk(raw.parent), _workshop(raw.parent) as work:
        tree, new = work / "tree", work / "disk.raw"
        _make_tree(work, tree, epoch, progress)
        progress("making the disk")
        bootloader = _make_bootloader(work)
        size = debian.SIZE_GIB
        disk.make_disk(tree, new, size_gib=size, bootloader=bootloader, seed=seed, epoch=epoch)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.replace(raw)
    return datetime.fromtimestamp(epoch, UTC)


def _make_tree(work: Path, tree: Path, epoch: int, progress: Told) -> None:
    files, customize = work / "files.tar", work / "customize"
    files.write_bytes(debian.files_tar(epoch))
    customize.write_text(debian.CUSTOMIZE)
    customize.chmod(0o755)

    def tell(line: str) -> None:
        log.debug("mmdebstrap: %s", line)
        for beginning, story in _STORY.items():
            if line.startswith(f"I: {beginning}"):
                progress(story)

    words: list[str | Path] = ["mmdebstrap", "--mode=root", "--variant=apt", "--format=directory"]
    words += [f"--include={','.join(debian.PACKAGES)}", '--aptopt=Acquire::Languages "none"']
    # Before the kernel is installed, so that its initramfs is made once and right.
    words += [f"--essential-hook=tar-in {shlex.quote(str(files))} /"]
    words += [f"--customize-hook={customize}", debian.SUITE, tree]
    env = {"SOURCE_DATE_EPOCH": str(epoch), "TMPDIR": str(work)}
    private.follow(words, tell, env=env)


def _make_bootloader(work: Path) -> Path:
    early, program = work / "early.cfg", work / "BOOTX64.EFI"
    early.write_text(debian.GRUB_EARLY)
    words: list[str | Path] = ["grub-mkimage", "-O", "x86_64-efi", "-o", program, "-c", early]
    proc.run([*words, "-p", "/boot/grub", *debian.GRUB_MODULES])
    return program


@contextmanager
def _workshop(base_dir: Path) -> Iterator[Path]:
    """A folder for what is half-made, gone afterwards, whoever its files belong to."""
    work = Path(tempfile.mkdtemp(prefix="making-", dir=base_dir))
    # Debian's user for downloads, `_apt`, must be able to pass.
    work.chmod(0o711)
    try:
        yield work
    finally:
        remove_foreign(work)


def _forget(base_dir: Path) -> None:
    """Removes what a killed maker left, and cached disks of other definitions."""
    for path in [*base_dir.glob("making-*"), *base_dir.glob("debian-*")]:
        remove_foreign(path)


@contextmanager
def at_rest(base_dir: Path) -> Iterator[None]:
    """While this lasts nobody makes the base image. Raises: HostError while somebody does."""
    if not base_dir.exists():
        yield
        return
    with (base_dir / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HostError(
                f"another process makes the base image in {base_dir}",
                hint="again when it has: that takes about a minute",
            ) from error
        yield


def remove_cached(base_dir: Path) -> bool:
    """Whether there was anything. Call it `at_rest`.

    The lock's file stays: who waits with it open would lock another than those who come later.
    """
    found = [path for path in base_dir.glob("*") if path.name != LOCK]
    for path in found:
        remove_foreign(path)
    return bool(found)


@contextmanager
def _alone(base_dir: Path, progress: Told) -> Iterator[None]:
    """Waits for another maker of the same base image, and finds its disk in the cache then."""
    with (base_dir / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that makes the base image")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
