"""A job as a transient unit of the machine's systemd.

Whoever started it may be lost: the unit goes on, and what it said is in a file. `start` runs it and
waits, `attach` waits for one that runs already, `stop` ends it. Each may arrive twice, for a client
sends again what it got no answer to, and Run Command knows no token. So all that begins something
holds the job's lock, and a job that has begun is never begun again.

The unit has a lock of its own, held by its main process and nothing below it: its end is known at
once, without asking again and again, and also when that process was killed.
"""

from __future__ import annotations

from amibuild.communicator import log
from amibuild.communicator.shell import FULL, ID_PREFIX, REPLY_BYTES, RUN, Unit, quote

# The timer that ends the machine when no job comes any more: begin-lease.sh begins it.
LEASE_UNIT = "amibuild-lease.timer"
LEASE = f"/run/systemd/transient/{LEASE_UNIT}"
# After SIGTERM; then systemd sends SIGKILL to what is left.
STOP_S = 5
# Where what was sent before is while a job's files are taken, and the line that tells of it.
HAS, HAS_LINE = ".has", "amibuild-has"
# Of a job that has secrets: those, and the certificate that its reply is closed for.
SECRETS_FILE, READER_FILE = "secrets.cms", "reader.pem"

# What systemd tells a unit of itself: that of the command would be wrong for the job's.
_OF_THE_COMMAND = (
    "INVOCATION_ID JOURNAL_STREAM MANAGERPID MEMORY_PRESSURE_WATCH MEMORY_PRESSURE_WRITE "
    "NOTIFY_SOCKET SYSTEMD_EXEC_PID PWD OLDPWD SHLVL"
)
# Short ones: SSM keeps 8,000 characters of them.
_LAST_LINES = 'tail -n 20 "$at/log" | cut -c1-390'


def start(
    unit: Unit, unpack: str, timeout_s: int, *, secrets: bool = False, closed: bool = False
) -> str:
    """Runs the job and replies. The last command's exit code is what SSM reports.

    `unpack` are the lines that put its files down. With `secrets` those are there, in memory, while
    it runs. Of a `closed` one, as one with secrets is, only the reader of the reply learns what it
    said. What the agent has in its environment, such as a proxy, the job has too.
    """
    return f"""\
{_renew_lease(unit)}\
mkdir -p "$at"
{_lock(unit)}\
if {{ [ ! -e "$at/begin.sh" ] || ! loaded; }} && [ ! -e "$at/began" ]; then
{_stop_earlier(unit)}\
rm -rf "$at/work"
mkdir "$at/work"
{unpack}\
cat >"$at/end.sh" <<'SCRIPT'
{_end(unit)}\
SCRIPT
(
    unset {_OF_THE_COMMAND}
    export -p
) >"$at/caller.sh"
cat >"$at/begin.sh" <<'SCRIPT'
{_begin(unit, secrets=secrets, closed=closed)}\
SCRIPT
systemd-run --quiet --collect --unit="$unit" --service-type=exec \\
    --property=RuntimeMaxSec={timeout_s} --property=TimeoutStopSec={STOP_S} \\
    --property=OOMPolicy=continue --property=ExecStopPost="/bin/sh $at/end.sh" \\
    -- /bin/bash "$at/begin.sh" 9>&-
rm -rf "$at/pieces" "$at/payload.tar.gz" "$at/has" "$at"/new.*
fi
exec 9>&-
{_reply(closed=closed)}"""


def take(unit: Unit, owners: str) -> str:
    """Says what the machine has of the job from an earlier sending, then takes its files from the
    input: a line, which is z when they are pressed, and a tar, in which what is equal is a second
    name of what is there. `put` are the lines for `start`.

    The earlier one is ended first, or it might change a file meanwhile. The input is read without
    the lock, for it may never end; cut off, it has no run.sh, which is last.
    """
    return f"""\
{_place(unit)}\
{owners}\
mkdir -p "$at"
new=$(mktemp -d "$at/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
{_lock(unit)}\
if [ ! -e "$at/began" ]; then
{_keep_earlier(unit)}\
fi
exec 9>&-
if [ -d "$at/has" ]; then
    cp -al "$at/has" "$new/{HAS}"
    (
        cd "$new/{HAS}"
        find . -type f -printf '%i %m %u:%g %p\\0'
        printf '\\0'
        find . -type f -exec sha256sum -bz -- {{}} +
    ) | gzip -1 >"$new/listed"
    echo "{HAS_LINE} $(stat -c %s "$new/listed")"
    cat "$new/listed"
    rm "$new/listed"
else
    echo "{HAS_LINE} 0"
fi
read -r pressed
tar "-x${{pressed}}pf" - -C "$new"
rm -rf "$new/{HAS}"
[ -e "$new/{RUN}" ] || {{
    echo "its files did not come whole" >&2
    exit 1
}}
"""


def put() -> str:
    return 'rmdir "$at/work"\nmv "$new" "$at/work"\n'


def attach(unit: Unit, *, closed: bool = False) -> str:
    """Waits for a job that was begun and replies, as its start does; it begins nothing."""
    return f"""\
{_renew_lease(unit)}\
loaded || [ -e "$at/began" ] || {{
    echo "amibuild-ended unknown"
    exit 1
}}
{_reply(closed=closed)}"""


def stop(unit: Unit, *, closed: bool = False) -> str:
    """Ends the job with all that it started, and prints its last lines. Of a `closed` one nothing
    is printed, and nothing but a mark is left: that its start, should it still arrive, comes
    late."""
    forget = _empty("$at") if closed else ""
    return f"""\
{_place(unit)}\
mkdir -p "$at"
{_lock(unit)}\
: >"$at/began"
systemctl stop "$unit" 2>/dev/null || true
{forget or f"[ ! -e $at/log ] || {_LAST_LINES}" + chr(10)}"""


def make_key(unit: Unit, bits: int) -> str:
    """Makes a key for this job on the machine, and prints a certificate with its public half."""
    return f"""\
{_place(unit)}\
command -v openssl >/dev/null || {{
    echo "secrets need openssl on the machine: install it in an earlier step" >&2
    exit 1
}}
mkdir -p "$at"
{_lock(unit)}\
[ ! -e "$at/began" ] || exit 0
cd "$at"
[ -e key/certificate.pem ] || {{
    rm -rf key
    mkdir key
    openssl req -x509 -newkey rsa:{bits} -nodes -days 1 -subj /CN=amibuild \\
        -keyout key/key.pem -out key/new.pem 2>key/said || {{ cat key/said >&2; exit 1; }}
    mv key/new.pem key/certificate.pem
}}
cat key/certificate.pem
"""


def _place(unit: Unit) -> str:
    return f"""\
set -eu
umask 077
at={quote(unit.folder)}
unit={quote(unit.name)}
loaded() {{
    [ "$(systemctl show --property=LoadState --value "$unit" 2>/dev/null)" = loaded ]
}}
"""


def _renew_lease(unit: Unit) -> str:
    """A command for a job is a sign of life, and sets the machine's lease back to its length."""
    return f"{_place(unit)}[ ! -e {LEASE} ] || systemctl restart {LEASE_UNIT} || true\n"


def _lock(unit: Unit) -> str:
    """Until the command closes it, or ends: then the kernel does."""
    return f"exec 9>{quote(unit.jobs_folder)}/lock\nflock 9\n"


def _empty(folder: str, keep: str = "") -> str:
    """Removes what is in a job's folder, but for the mark that it began. What its script has
    mounted there is not in it, and may be others' files: that is unmounted. Where that fails
    nothing is removed, for find's -xdev does not see a folder of the same disk that is mounted
    there. `keep` are lines that take away what is wanted, before the rest goes."""
    return f"""\
    mounted() {{
        while read -r _ _ _ _ point _; do
            case $point in "$1"/*)
                printf '%b/' "$point"  # its end may be a line break
                return
                ;;
            esac
        done </proc/self/mountinfo
    }}
    while point=$(mounted "{folder}"); [ -n "$point" ]; do
        umount --lazy --recursive -- "$point" || exit 1
    done
{keep}\
    find "{folder}" -xdev -mindepth 1 ! -path "{folder}/began" -delete
"""


def _stop_earlier(unit: Unit, keep: str = "") -> str:
    """What is left of the job as it was sent before, by a bake that is taken up again. A mark stays
    of each, should its command arrive late."""
    return f"""\
for other in {quote(unit.jobs_folder)}/{ID_PREFIX}*; do
    [ "$other" != "$at" ] || continue
    : >"$other/began"
    systemctl stop "{unit.names}${{other##*/{ID_PREFIX}}}.service" 2>/dev/null || true
{_empty("$other", keep)}\
done
"""


def _keep_earlier(unit: Unit) -> str:
    """The same, but that its files stay, each lot in a folder of its own below `has`."""
    keep = """\
    for kept in "$other/work" "$other/has"/*; do
        [ -d "$kept" ] || continue
        mkdir -p "$at/has"
        mv "$kept" "$(mktemp -d "$at/has/XXXXXX")"
    done
"""
    return _stop_earlier(unit, keep)


def _begin(unit: Unit, *, secrets: bool, closed: bool) -> str:
    """The unit's main process. It makes the reply too, so that each who waits finds the same."""
    at = quote(unit.folder)
    return f"""\
umask 077
exec </dev/null >/dev/null 2>{at}/trouble 8>{at}/running
flock 8
cd {at}/work || exit
: >{at}/began
head -c {log.RESERVE_BYTES} /dev/zero >{at}/reserve
{_open_envelope(at) if secrets else ""}\
{f"mv {READER_FILE} {at}/{READER_FILE}{chr(10)}" if closed else ""}\
{log.bounding(at)}\
exec 6>>{at}/log
exec 7> >(watch_log)
(
    exec 7>&- 8>&-
    . {at}/caller.sh
    . ./environment.sh
    rm -f {at}/caller.sh ./environment.sh
    export AMIBUILD_RESULT={at}/result
    {f"export AMIBUILD_SECRETS={at}/secrets" if secrets else ""}
    umask 022
    exec bash run.sh
) >&6 2>&6 6>&-
code=$?
exec 6>&- 7>&-
wait $!
cd {at} || exit
note_full
drop_middle "$(stat -c %s log)"
rm -rf secrets key reserve
touch log result
[ "$code" -eq 0 ] || [ ! -e full ] || {{
    [ -z "$(tail -c 1 log | tr '\\0' x)" ] || echo
    echo {quote(FULL)}
}} >>log
mkdir -p sent
pack() {{
    [ ! -f result ] || cat result >sent/result || return
    cut_log "$1" >sent/log && tar -czf reply.tar.gz -C sent log result
}}
: >sent/result
for limit in {log.LOG_LIMIT_BYTES} {log.LOG_CUT_BYTES}; do
    packed=
    pack $limit || continue
    packed=yes
    [ "$(stat -c %s reply.tar.gz)" -gt {log.PACKED_LIMIT_BYTES} ] || break
done
note_full
rm -r sent
[ -n "$packed" ] || {{
    [ ! -e full ] || echo {quote(FULL)} >&2
    exit 1
}}
{_CLOSE_REPLY if closed else ""}\
{{
    sha256=$(sha256sum <reply.tar.gz | cut -c1-64)
    echo "amibuild-reply $code $(stat -c %s reply.tar.gz) $sha256" &&
        head -c {REPLY_BYTES} reply.tar.gz | base64 -w0
}} >reply.new || exit
mv reply.new reply
"""


_CLOSE_REPLY = f"""\
openssl cms -encrypt -binary -aes256 -outform DER -in reply.tar.gz -out reply.cms {READER_FILE} ||
    exit
mv reply.cms reply.tar.gz
"""


def _open_envelope(at: str) -> str:
    return f"""\
mkdir -m 700 {at}/secrets || exit
openssl cms -decrypt -inform DER -in {SECRETS_FILE} -inkey {at}/key/key.pem \\
    -recip {at}/key/certificate.pem -out {at}/secrets/all.tar || exit
tar -xf {at}/secrets/all.tar -C {at}/secrets || exit
rm -rf {at}/key {at}/secrets/all.tar {SECRETS_FILE}
"""


def _end(unit: Unit) -> str:
    """systemd runs it when nothing of the unit is left, whatever ended it."""
    at = quote(unit.folder)
    return f"""\
umask 077
cd {at} || exit
rm -rf secrets key work/{SECRETS_FILE} reserve
echo "$SERVICE_RESULT ${{EXIT_STATUS:-}}" >ended.new
mv ended.new ended
"""


def _reply(*, closed: bool) -> str:
    """Until the unit has ended. Only what is killed has no reply, and is ended by systemd."""
    return f"""\
until [ -e "$at/began" ] || ! loaded; do sleep 0.05; done
[ ! -e "$at/running" ] || flock --shared "$at/running" true
until [ -e "$at/reply" ] || [ -e "$at/ended" ] || ! loaded; do sleep 0.1; done
if [ -e "$at/reply" ]; then
    cat "$at/reply"
    {"" if closed else f"{_LAST_LINES} >&2"}
    read -r _ code _ <"$at/reply"
    exit "$code"
fi
echo "amibuild-ended $(cat "$at/ended" 2>/dev/null || echo gone)"
{"" if closed else f"[ ! -e $at/log ] || {_LAST_LINES}"}
[ ! -e "$at/trouble" ] || head -c 4000 "$at/trouble"
exit 1
"""
