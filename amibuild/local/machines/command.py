"""How a script becomes a command inside a machine: the same shell text for every driver.

The script goes to /run (memory, never the disk) and runs as a transient unit, so that it has the
clean environment of a service, and that stopping the unit ends everything it started.
"""

from __future__ import annotations

FOLDER = "/run/amibuild/commands"
OUTPUT_LIMIT = 1 << 20
# After SIGTERM; then systemd sends SIGKILL to what is left.
STOP_S = 5
CANCELLED = 128 + 15

# $1 name, $2 where to report the exit code to (or empty), then the interpreter; stdin the script.
# It ends with the script's own exit code, and kills itself when there is none, since the unit was
# stopped or never ran: no exit code of a script looks like that.
LAUNCHER = f"""\
set -u
cd /
umask 077
name=$1 report=$2; shift 2
folder={FOLDER}/$name
mkdir -p "$folder" || kill -9 $$
cat >"$folder/script" || kill -9 $$
systemd-run --quiet --pipe --wait --collect --service-type=exec --unit="amibuild-$name" \\
  --property=TimeoutStopSec={STOP_S} --setenv=HOME=/root -- \\
  /bin/sh -c 'folder=$1; shift; "$@" "$folder/script"; echo $? >"$folder/code"' \\
  sh "$folder" "$@" </dev/null
code=
[ ! -r "$folder/code" ] || read -r code <"$folder/code"
rm -rf "$folder"
[ -n "$code" ] || kill -9 $$
[ -z "$report" ] || echo "$code" >"$report"
exit "$code"
"""

# $1 name. The unit may not be there yet, when the cancel follows the start at once.
CANCELLER = f"""\
tries=0
until systemctl stop "amibuild-$1.service" 2>/dev/null; do
  tries=$((tries + 1))
  [ -d "{FOLDER}/$1" ] || [ $tries -lt 20 ] || exit 0
  [ $tries -lt 100 ] || exit 1
  sleep 0.1
done
"""


def interpreter(script: bytes) -> tuple[str, ...]:
    """The words of its `#!` line; /bin/sh without one.

    We start it ourselves instead of executing the file, as /run may be mounted noexec: Debian's
    initramfs does so. Like the kernel, what follows the program is one argument.
    """
    first = script.split(b"\n", 1)[0]
    if not first.startswith(b"#!"):
        return ("/bin/sh",)
    words = first[2:].decode(errors="replace").strip().split(None, 1)
    return tuple(word.strip() for word in words) or ("/bin/sh",)


def launch_argv(name: str, script: bytes, *, report: str = "") -> tuple[str, ...]:
    return ("/bin/sh", "-c", LAUNCHER, "sh", name, report, *interpreter(script))


def cancel_argv(name: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", CANCELLER, "sh", name)
