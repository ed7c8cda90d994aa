"""The address of a repository: https or ssh, and of a form in which no program can read anything but an address."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from secret_manager_controller.errors import AccessDenied, PermanentError, Reason, foreign
from secret_manager_controller.model.hosts import host_matches

_USER = r"(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]{0,63})"
_HOST = r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)"
_PORT = r"(?::(?P<port>[1-9][0-9]{0,4}))?"
# What a path has on the hosts that there are; neither quotes, nor spaces, nor a query, nor a leading dash.
_PATH = r"[A-Za-z0-9_~.%+@=,-]+(?:/[A-Za-z0-9_~.%+@=,-]+)*/?"
_HTTPS = re.compile(rf"(?i:https)://(?:{_USER}@)?{_HOST}{_PORT}/(?P<path>{_PATH})")
_SSH = re.compile(rf"(?i:ssh)://(?:{_USER}@)?{_HOST}{_PORT}/(?P<path>{_PATH})")
_SCP = re.compile(rf"(?:{_USER}@)?{_HOST}(?P<port>):(?P<path>/?{_PATH})")
MAX_URL = 1024


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository that may be asked for.

    Attributes:
        scheme: how it is reached.
        url: its address, without a login; for ssh with the user, who is part of the address there.
        host: in lower case.
        port: None for the scheme's own.
        path: without slashes around it.
        user: who logs in, if the address says so.
    """

    scheme: Literal["https", "ssh"]
    url: str
    host: str
    port: int | None
    path: str
    user: str | None

    @property
    def origin(self) -> str:
        """The server's own URL, which no other server's begins with."""
        return f"{self.scheme}://{self.host}{f':{self.port}' if self.port else ''}/"

    @property
    def place(self) -> tuple[str, str, int | None, str]:
        """What makes two addresses the same repository, as Argo CD compares them: no user, no `.git`, no case."""
        return self.scheme, self.host, self.port, self.path.lower().removesuffix(".git")


def parse_remote(url: object, *, of: str) -> Remote:
    """Return a repository's address.

    Args:
        url: `https://host/path`, `ssh://user@host/path` or `user@host:path`.
        of: whose it is, for messages.

    Raises:
        PermanentError: SourceUnsupported: anything else. The URL is not quoted: it may hold a password.
    """
    remote = parse_known_remote(url)
    if remote is None:
        scheme = url.partition("://")[0] if isinstance(url, str) and "://" in url else None
        given = f"its scheme is {foreign(scheme[:16])!r}" if scheme else "it has no scheme"
        raise PermanentError(
            Reason.SOURCE_UNSUPPORTED,
            f"{of} has a repository URL that is not of the form https://host/path, ssh://user@host/path or "
            f"user@host:path, without a password in it ({given}); correct it, and give logins in a Secret",
        )
    return remote


def parse_known_remote(url: object) -> Remote | None:
    """Return a repository's address, or None for what is none."""
    if not isinstance(url, str) or len(url) > MAX_URL:
        return None
    for scheme, pattern in (("https", _HTTPS), ("ssh", _SSH), ("ssh", _SCP)):
        match = pattern.fullmatch(url)
        if match is None or (match["port"] and int(match["port"]) > 65_535) or ".." in match["path"].split("/"):
            continue
        user, host, port = match["user"], match["host"].lower(), int(match["port"]) if match["port"] else None
        path = match["path"].rstrip("/")
        at = f"{user}@" if user and scheme == "ssh" else ""
        if pattern is _SCP:  # Without a leading slash the path is relative to the user's home; ssh:// can't say that.
            address = f"{at}{host}:{path}"
        else:
            address = f"{scheme}://{at}{host}{f':{port}' if port else ''}/{path}"
        kind: Literal["https", "ssh"] = "https" if scheme == "https" else "ssh"
        return Remote(kind, address, host, port, path.strip("/"), user)
    return None


def check_host(host: str, allowed: Iterable[str] | None, *, of: str) -> None:
    """Refuse a server that is not allowed, before anything is sent to it.

    Args:
        host: the server.
        allowed: hosts, each with all below it; None for any.
        of: whose it is, for messages.

    Raises:
        AccessDenied: it is none of them.
    """
    if allowed is not None and not host_matches(host, allowed):
        raise AccessDenied(
            f"{of} is on the host {foreign(host)!r}, which is not an allowed one: have it added to spec.gitHosts of a "
            "SecretManagerPolicy for the object's namespace, or to the controller's GIT_HOSTS"
        )
