"""Just enough of systemd for a job's unit, as programs in a folder: it runs for real, in a session
of its own, and is ended with all that it started. What else is asked for goes to the next
systemd-run or systemctl on the PATH.
"""

from __future__ import annotations

from pathlib import Path

_NEXT = """\
next() {
    program=$1
    shift
    PATH=${PATH#"@BIN@:"}
    export PATH
    exec "$program" "$@"
}
"""
RUN = (
    "#!/bin/bash\nset -eu\n"
    + _NEXT
    + """\
case "$*" in *--unit=amibuild-job-*) ;; *) next systemd-run "$@" ;; esac
while [ "$1" != -- ]; do
    case $1 in
        --unit=*) unit=@UNITS@/${1#--unit=} ;;
        --property=RuntimeMaxSec=*) limit_s=${1##*=} ;;
        --property=ExecStopPost=*) post=${1##*=} ;;
    esac
    shift
done
shift
mkdir "$unit" || exit
echo "${unit##*/}" >>@UNITS@.started
env -i PATH="$PATH" INVOCATION_ID=of-the-unit setsid bash -c '
    unit=$1 limit_s=$2 post=$3
    shift 3
    begin="echo \\$\\$ >$unit/pid; exec timeout --kill-after=1 $limit_s \\"\\$@\\""
    setsid bash -c "$begin" bash "$@" &
    main=$!
    wait $main
    code=$?
    kill -KILL -- "-$(cat $unit/pid)" 2>/dev/null
    case $code in 0) result=success ;; 124) result=timeout ;; *) result=exit-code ;; esac
    [ $code -le 128 ] || result=signal
    SERVICE_RESULT=$result EXIT_STATUS=$code $post
    rm -r $unit
' bash "$unit" "$limit_s" "$post" "$@" </dev/null >/dev/null 2>&1 &
until [ -s "$unit/pid" ] || [ ! -e "$unit" ]; do sleep 0.01; done
"""
)
CONTROL = (
    "#!/bin/bash\nset -eu\n"
    + _NEXT
    + """\
case "$*" in *amibuild-job-*) ;; *) next systemctl "$@" ;; esac
for unit; do :; done
unit=@UNITS@/$unit
case $1 in
    show) if [ -e "$unit" ]; then echo loaded; else echo not-found; fi ;;
    stop)
        [ -e "$unit" ] || exit 5
        group=$(cat "$unit/pid")
        kill -TERM -- "-$group" || true
        for ((tries = 0; tries < 50; tries++)); do
            [ -e "$unit" ] || exit 0
            sleep 0.01
        done
        kill -KILL -- "-$group" || true
        while [ -e "$unit" ]; do sleep 0.01; done
        ;;
esac
"""
)


class Systemd:
    """`path` is the line that puts it first in a script's PATH."""

    def __init__(self, root: Path) -> None:
        self._units, self.bin = root / "units", root / "systemd"
        for folder in (self._units, self.bin):
            folder.mkdir(parents=True)
        for name, text in (("systemd-run", RUN), ("systemctl", CONTROL)):
            program = self.bin / name
            program.write_text(
                text.replace("@UNITS@", str(self._units)).replace("@BIN@", str(self.bin))
            )
            program.chmod(0o755)

    @property
    def path(self) -> str:
        return f"PATH={self.bin}:$PATH\n"

    @property
    def started(self) -> list[str]:
        """The units that were ever started."""
        log = self._units.with_name("units.started")
        return log.read_text().splitlines() if log.exists() else []

    @property
    def running(self) -> list[str]:
        return sorted(unit.name for unit in self._units.iterdir())
