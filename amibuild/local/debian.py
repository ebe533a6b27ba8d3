"""What the local base image consists of: Debian 13, as close to Debian's own AMI as is useful.

Pure data, and its digest: `base.py` makes the image from it, and makes it anew when the digest
changes. The size of the image costs time in every capture, so what no recipe needs stays out.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

SUITE = "trixie"
RELEASE = "13"
ARCHITECTURE = "amd64"
PARAMETER = f"/aws/service/debian/release/{RELEASE}/latest/{ARCHITECTURE}"
# The account that Debian publishes its AMIs from.
OWNER = "136693071363"
PLATFORM_AGENT = "qemu-guest-agent"
SIZE_GIB = 2

PACKAGES = (
    "ca-certificates",
    "cloud-guest-utils",
    "cloud-init",
    "curl",
    "dbus",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "libnss-resolve",
    "libpam-systemd",
    "linux-image-cloud-amd64",
    "locales",
    "netbase",
    "openssh-server",
    "procps",
    "python3",
    PLATFORM_AGENT,
    "sudo",
    "systemd",
    "systemd-resolved",
    "systemd-sysv",
    "systemd-timesyncd",
    "tzdata",
    "udev",
)

_CLOUD_INIT = """\
# As in Debian's AMI; NoCloud is how the local target hands over key, hostname and user-data.
datasource_list: [Ec2, NoCloud, None]
system_info:
  default_user:
    name: admin
# The network is configured in /etc/systemd/network.
network:
  config: disabled
# Those that user-data is for. The disk is grown on the host; all modules together cost 4 s more.
cloud_init_modules:
  [seed_random, bootcmd, write_files, disk_setup, mounts, set_hostname, update_hostname,
   update_etc_hosts, ca_certs, users_groups, ssh]
cloud_config_modules:
  [ssh_import_id, locale, set_passwords, apt_configure, ntp, timezone, runcmd]
cloud_final_modules:
  [package_update_upgrade_install, write_files_deferred, scripts_vendor, scripts_per_once,
   scripts_per_boot, scripts_per_instance, scripts_user, final_message, power_state_change]
# An RSA key takes a virtual machine without hardware support many seconds.
ssh_genkeytypes: [ed25519, ecdsa]
"""

_NETWORK = """\
# Only what a virtual machine has: a container's interfaces come configured.
[Match]
Name=en* eth*

[Network]
DHCP=yes

[DHCPv4]
UseDomains=yes
"""

# The kernel is found by the links that Debian keeps in /, so that a kernel upgrade boots.
_GRUB = """\
set default=0
set timeout=0
serial --unit=0 --speed=115200
terminal_output console serial

menuentry 'Debian GNU/Linux' {
    search --no-floppy --label --set=root root
    linux /vmlinuz root=LABEL=root ro console=tty0 console=ttyS0,115200n8
    initrd /initrd.img
}
"""

_HOSTS = """\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
"""

# Without hardware to accelerate it a virtual machine starts some 60 programs a minute while it
# boots. These find nothing to do in one: without them, and with the settings here, the way to the
# guest agent took 41 s instead of 47 s, and 55 s of processor time instead of 67 s (QEMU's TCG).
MASKED_UNITS = (
    "dev-hugepages.mount",
    "getty@tty1.service",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-hibernate-clear.service",
    "systemd-network-generator.service",
    "systemd-networkd-persistent-storage.service",
    "systemd-pstore.service",
    "systemd-udev-load-credentials.service",
)
MASKED_GENERATORS = ("gpt-auto", "hibernate-resume", "ssh", "system-update", "tpm2")

# udev asks it for the names of vendors, and it is half of the initramfs.
_NO_HWDB = """\
#!/bin/sh
if [ "$1" != prereqs ]; then rm -f "$DESTDIR/usr/lib/udev/hwdb.bin"; fi
"""

FILES = {
    # The one driver that a root disk needs here, instead of all: 18 MB of initramfs otherwise.
    # The kernel itself has ext4 and NVMe.
    "etc/initramfs-tools/conf.d/amibuild": "MODULES=list\nRESUME=none\n",
    "usr/share/initramfs-tools/modules.d/amibuild": "virtio_blk\n",
    "etc/initramfs-tools/hooks/zz-amibuild": _NO_HWDB,
    "etc/cloud/cloud.cfg.d/90_amibuild.cfg": _CLOUD_INIT,
    # cloud-init looks for its data itself, and a shell script need not do so before it.
    "etc/cloud/ds-identify.cfg": "policy: enabled\n",
    "etc/systemd/network/20-wired.network": _NETWORK,
    # Not checked at boot: it has a journal, and was checked when it was grown.
    "etc/fstab": "LABEL=root / ext4 rw,discard,errors=remount-ro 0 0\n",
    "boot/grub/grub.cfg": _GRUB,
    # Tells provisioners that the agent is part of this platform, and which package it is.
    "usr/share/amibuild-platform/agent": f"{PLATFORM_AGENT}\n",
}

# Runs on the host with the root of the finished tree as its argument.
CUSTOMIZE = f"""\
#!/bin/sh
set -eu
root=$1
chroot "$root" systemctl enable systemd-networkd systemd-resolved systemd-timesyncd
# They look for LVM snapshots, which the image has none of, at every boot and each week.
chroot "$root" systemctl disable e2scrub_reap.service e2scrub_all.timer
chroot "$root" systemctl mask {" ".join(MASKED_UNITS)}
mkdir -p "$root"/etc/systemd/system-generators
for name in {" ".join(MASKED_GENERATORS)}; do
    ln -s /dev/null "$root/etc/systemd/system-generators/systemd-$name-generator"
done
rm -f "$root"/etc/ssh/ssh_host_* "$root"/var/lib/systemd/random-seed
rm -f "$root"/var/lib/dbus/machine-id
rm -f "$root"/initrd.img.old "$root"/vmlinuz.old
rm -f "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old
rm -rf "$root"/var/log/apt
find "$root"/var/log -type f -delete
: >"$root"/etc/machine-id
echo localhost >"$root"/etc/hostname
cat >"$root"/etc/hosts <<'EOF'
{_HOSTS}EOF
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root"/etc/resolv.conf
# /etc and /var are as new as /usr: nothing is to be brought up to date at the first boot.
touch "$root"/etc/.updated "$root"/var/.updated
"""

# The bootloader's own configuration: everything else is in the image, where a recipe can change it.
GRUB_EARLY = """\
search --no-floppy --label --set=root root
set prefix=($root)/boot/grub
configfile $prefix/grub.cfg
"""
GRUB_MODULES = (
    *("part_gpt", "fat", "ext2", "normal", "linux", "search", "search_label", "search_fs_uuid"),
    *("configfile", "echo", "test", "serial", "terminal", "all_video", "gzio", "loadenv", "reboot"),
)


def files_tar(epoch: int) -> bytes:
    """FILES as a tar archive that belongs to root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in sorted(FILES.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(text.encode()), epoch
            entry.mode = 0o755 if text.startswith("#!") else 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def definition() -> str:
    """SHA-256 of everything above: the same definition makes the same kind of image."""
    body = [SUITE, ARCHITECTURE, SIZE_GIB, PACKAGES, FILES, CUSTOMIZE, GRUB_EARLY, GRUB_MODULES]
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
