"""What git and ssh say of a failure, and what it means. Their own words are never shown: they may quote anything."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.sources.git.login import Access
from secret_manager_controller.sources.protocol import RevisionReplaced

MAX_FILE_BYTES = 256 * 2**20
"""Of a pack or an archive: as much as an unpacked artifact may have."""
TOO_LARGE = (
    f"one revision of the repository is larger than the {MAX_FILE_BYTES // 2**20} MiB that one may have, takes too "
    "much time or memory, or is damaged; keep secrets in a smaller repository"
)


@dataclass(frozen=True, slots=True)
class _Cause:
    pattern: str
    kind: type[PermanentError | RetryableError]
    reason: Reason
    message: str


_CAUSES: Sequence[_Cause] = (
    _Cause(
        "RPC failed|early EOF|unexpected disconnect|hung up unexpectedly|Connection (reset|refused|timed out)",
        RetryableError,
        Reason.FETCH_FAILED,
        "the connection to the Git server {host} failed or broke off",
    ),
    _Cause(
        "File too large|File size limit exceeded|[Cc]annot allocate memory|[Oo]ut of memory|invalid index-pack output"
        f"|died of signal ({signal.SIGXFSZ:d}|{signal.SIGXCPU:d})",
        PermanentError,
        Reason.INVALID_ARCHIVE,
        TOO_LARGE,
    ),
    _Cause(
        "Host key verification failed|HOST IDENTIFICATION HAS CHANGED",
        PermanentError,
        Reason.FETCH_FAILED,
        "the host key of {host} is not a known one; add the right one to known_hosts in the login's Secret, or to "
        "Argo CD's ConfigMap argocd-ssh-known-hosts-cm",
    ),
    _Cause(
        "Authentication failed|could not read (Username|Password)|Permission denied|error: 40[13]|HTTP 40[13]"
        "|Load key .*(invalid|error)",
        PermanentError,
        Reason.CREDENTIALS_UNAVAILABLE,
        "{host} refused the login{hint}",
    ),
    _Cause(
        "SSL certificate|certificate verification|SSL: |CAfile",
        PermanentError,
        Reason.FETCH_FAILED,
        "the certificate of {host} is not one that is trusted; give its authority as ca.crt in the login's Secret, or "
        "in Argo CD's ConfigMap argocd-tls-certs-cm",
    ),
    _Cause(
        "not our ref|find remote ref|unadvertised object|no such remote ref|remote error: want",
        RevisionReplaced,
        Reason.FETCH_FAILED,
        "{host} does not have the commit any more, or gives it to nobody",
    ),
    _Cause(
        "error: 404|[Rr]epository .*not found|does not appear to be a git repository|not found: did you run",
        PermanentError,
        Reason.FETCH_FAILED,
        "{host} has no such repository, or hides it from this login{hint}",
    ),
    _Cause(
        "error: 30[12378]|redirect",
        PermanentError,
        Reason.FETCH_FAILED,
        "{host} redirects to another address, and redirects are not followed; correct the repository's URL",
    ),
)
"""The first that fits counts."""


def explain(status: int, errors: bytes, access: Access | None) -> PermanentError | RetryableError:
    """Return what a failed command means, in our words; those of the remote side don't count.

    Args:
        status: the exit code, or a signal's number below zero.
        errors: what was written to standard error, in the C locale.
        access: what was to be reached.
    """
    lines = (line for line in errors.decode(errors="replace").splitlines() if not line.startswith("remote:"))
    text = "\n".join([*lines, f"died of signal {-status if status < 0 else status - 128}"])
    host, hint = (access.remote.host, access.login.hint) if access else ("git", "")
    for cause in _CAUSES:
        if re.search(cause.pattern, text):
            return cause.kind(cause.reason, cause.message.format(host=host, hint=hint))
    if status == 127:
        return RetryableError(Reason.FETCH_FAILED, "there is no program `git`; install Git beside the controller")
    return RetryableError(Reason.FETCH_FAILED, f"the Git server {host} could not be reached, or broke off")
