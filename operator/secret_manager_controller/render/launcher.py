"""The program between us and a build: limits itself, gives up the network, and becomes the build.

    python -I launcher.py MEMORY_BYTES CPU_SECONDS PROGRAM [ARGUMENT …]

A program of its own, since what runs between fork and exec in a process with threads may deadlock. Network namespaces
need rights that a restricted pod does not have; a seccomp filter does not. The filter outlives exec. It refuses every
socket, other processes (no fork, no signal, no look into their memory), and every change to the file system.

Nothing is imported here but the standard library and pyseccomp: each start pays for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import sys

EXIT_NOT_SANDBOXED = 120
EXIT_NOT_STARTED = 121

ADDRESS_SPACE = 4 << 30
"""Go reserves half a gigabyte of addresses before it uses any; what it uses is RLIMIT_DATA's."""
OPEN_FILES = 256

_PR_SET_PDEATHSIG = 1
_CLONE_THREAD = 0x00010000

_REFUSED = (
    # The network; io_uring can open sockets too.
    *("socket", "socketpair", "connect", "bind", "listen", "sendto", "sendmsg", "io_uring_setup"),
    # Other processes. Go makes threads with clone, so that clone3 is as good as absent.
    *("fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "kill", "tkill", "rt_sigqueueinfo"),
    *("pidfd_open", "pidfd_getfd", "pidfd_send_signal", "kcmp"),
    # Files.
    *("creat", "unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2", "link", "linkat", "symlink"),
    *("symlinkat", "mkdir", "mkdirat", "mknod", "mknodat", "chmod", "fchmod", "fchmodat", "chown", "fchown"),
    *("lchown", "fchownat", "truncate", "setxattr", "lsetxattr", "fsetxattr"),
    # The kernel's larger surfaces.
    *("bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "mount", "umount2", "unshare"),
    *("setns", "chroot", "pivot_root", "personality", "init_module", "finit_module", "kexec_load"),
)


def limit(memory: int, cpu_seconds: int) -> None:
    """Bound what this process may use, for good."""
    for kind, bound in (
        (resource.RLIMIT_CORE, 0),  # A core dump would hold every value.
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, ADDRESS_SPACE),
        (resource.RLIMIT_DATA, memory),
    ):
        resource.setrlimit(kind, (bound, bound))


def die_first() -> None:
    """Where the kernel has to end a process for want of memory, let it be this one: a wish, no part of the sandbox."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - pathlib is slow.
        file.write("1000")


def die_with_parent() -> None:
    """Let the kernel kill this process when the one that started it ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def confine() -> None:
    """Load the filter; foreign architectures, 32-bit calls among them, kill the process (libseccomp's default)."""
    import pyseccomp  # noqa: PLC0415 - where there is no libseccomp the import fails, and that is told.

    allow_all_but = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    denied = pyseccomp.ERRNO(errno.EACCES)
    for call in _REFUSED:
        allow_all_but.add_rule(denied, call)
    allow_all_but.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    allow_all_but.add_rule(denied, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_THREAD, 0))
    for flag in (os.O_CREAT, os.O_TRUNC):
        allow_all_but.add_rule(denied, "openat", pyseccomp.Arg(2, pyseccomp.MASKED_EQ, flag, flag))
        allow_all_but.add_rule(denied, "open", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, flag, flag))
    allow_all_but.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "openat2")
    # Go's scheduler signals its own threads; the process id stays the same over exec.
    allow_all_but.add_rule(denied, "tgkill", pyseccomp.Arg(0, pyseccomp.NE, os.getpid()))
    allow_all_but.load()  # Sets no-new-privileges too.


def main(arguments: list[str]) -> int:
    """Become the program; return only if that fails."""
    memory, cpu_seconds, program, *rest = arguments
    try:
        die_with_parent()
        die_first()
        confine()
        limit(int(memory), int(cpu_seconds))
    except Exception as error:  # noqa: BLE001 - whatever it is: without the sandbox nothing is started.
        sys.stderr.write(type(error).__name__)
        return EXIT_NOT_SANDBOXED
    try:
        os.execve(program, [program, *rest], dict(os.environ))  # noqa: S606 - no shell is wanted.
    except OSError:
        return EXIT_NOT_STARTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
