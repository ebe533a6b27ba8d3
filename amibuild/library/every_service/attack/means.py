"""What attempts are made with: system calls that Python has no name for, and ways to undo them."""

import ctypes
import errno
import os
import platform
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

MARK = "attack-was-here"
# Source: the kernel's tables of system calls.
NUMBERS = {
    "x86_64": {"init_module": 175, "bpf": 321, "io_uring_setup": 425},
    "aarch64": {"init_module": 105, "bpf": 280, "io_uring_setup": 425},
}
# Where programs of each architecture look for it. A glob would also find the one for i386.
LOADERS = {
    "x86_64": "/usr/lib64/ld-linux-x86-64.so.2",
    "aarch64": "/usr/lib/ld-linux-aarch64.so.1",
}
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
PROT_READ_WRITE_EXEC, MAP_PRIVATE_ANONYMOUS = 7, 0x22
libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """Not by an error of a system call."""


def libc_call(name: str, *arguments: object) -> None:
    """A function of libc. Raises: OSError."""
    if getattr(libc, name)(*arguments) == -1:
        failed()


def failed() -> NoReturn:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code))


def asked_nonsense(name: str, *arguments: object) -> None:
    """A system call with nonsense, which the kernel calls it when it is willing to look.

    Raises: OSError when it is not.
    """
    libc.syscall.restype = ctypes.c_long
    refused = libc.syscall(NUMBERS[platform.machine()][name], *arguments) == -1
    if refused and ctypes.get_errno() in (errno.EPERM, errno.EACCES, errno.ENOSYS):
        failed()


def apart(action: Callable[[], object]) -> None:
    """In a child, for what it changes. Raises: OSError as the child's."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            action()
        except OSError as error:
            code = error.errno or errno.EIO
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, os.strerror(code)) if code > 0 else Refused(f"signal {-code}")


def opened(path: str) -> None:
    """For writing."""
    os.close(os.open(path, os.O_WRONLY))


def written(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    Path(path).unlink()


def looked_into(path: str) -> None:
    """A folder or a file. Whoever may not look into it still sees which it is."""
    if Path(path).is_dir():
        list(Path(path).iterdir())
    else:
        Path(path).read_bytes()


def with_file(folder: str, action: Callable[[str], object]) -> None:
    """A program in `folder`, which the service may write to, and what is to be done with it."""
    path = Path(folder, MARK)
    path.write_bytes(Path("/usr/bin/true").read_bytes())
    try:
        path.chmod(0o700)
        action(str(path))
    finally:
        path.unlink()


def make_setuid(path: str) -> None:
    Path(path).chmod(0o4755)


def mount_something() -> None:
    """In a namespace of its own, and from there to no other."""
    libc_call("unshare", CLONE_NEWNS)
    libc_call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)


def run(path: str) -> None:
    apart(lambda: os.execv(path, [path]))


def load(path: str) -> None:
    """The dynamic loader maps it, so that nothing is executed but the loader."""
    loader = LOADERS[platform.machine()]
    pid = os.fork()
    if pid == 0:
        os.close(2)
        os.execv(loader, [loader, path])
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise Refused("the loader can't map it")


def run_from_memory() -> None:
    descriptor = os.memfd_create(MARK)
    os.write(descriptor, Path("/usr/bin/true").read_bytes())
    run(f"/proc/self/fd/{descriptor}")


def mounts() -> dict[str, list[str]]:
    """Where something is mounted, and how. The last one at a place hides those before it."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line.split()[4]: line.split()[5].split(",") for line in lines}


def written_elsewhere(but: set[str]) -> None:
    """In whatever folder can be written to, of all mounts that are not read-only."""
    tops = [at for at, options in mounts().items() if "rw" in options]
    for top in (at for at in tops if not any(f"{at}/".startswith(f"{one}/") for one in but)):
        for folder, names, _ in os.walk(top):
            names[:] = [name for name in names if f"{folder}/{name}" not in but]
            if os.access(folder, os.W_OK):
                return written(f"{folder}/{MARK}")
    raise Refused("no folder can be written to")


def run_elsewhere(state: str) -> None:
    """Any other mount that can be written to, and run from. Without a sandbox the root is one."""
    for at, options in mounts().items():
        open_ = "rw" in options and "noexec" not in options
        if at != state and open_ and os.access(at, os.W_OK):
            return
    raise Refused("no other mount can be written to and run from")


def map_executable() -> None:
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    at = libc.mmap(None, 4096, PROT_READ_WRITE_EXEC, MAP_PRIVATE_ANONYMOUS, -1, 0)
    if at == ctypes.c_void_p(-1).value:
        failed()


def with_device(folder: str) -> None:
    path = Path(folder, MARK)
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    path.unlink()


def read_journal() -> None:
    for place in ("/var/log/journal", "/run/log/journal"):
        for path in Path(place).rglob("*.journal"):
            path.read_bytes()
            return
    raise Refused("nothing is to be seen there")


def connect_bus() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bus:
        bus.connect("/run/dbus/system_bus_socket")


def without_no_new_privs() -> None:
    if "NoNewPrivs:\t1" in Path("/proc/self/status").read_text():
        raise Refused("no program that it starts gets more rights")
