"""Addresses of repositories: what may be reached, and what no program may get to read."""

import pytest

from secret_manager_controller.errors import AccessDenied, PermanentError, Reason
from secret_manager_controller.sources.git.remote import check_host, parse_remote


@pytest.mark.parametrize(
    ("url", "scheme", "address", "place"),
    [
        (
            "https://GitHub.com/Org/Repo.git",
            "https",
            "https://github.com/Org/Repo.git",
            ("https", "github.com", None, "org/repo"),
        ),
        (
            "https://git.example:8443/a/b/",
            "https",
            "https://git.example:8443/a/b",
            ("https", "git.example", 8443, "a/b"),
        ),
        (
            "https://user@dev.azure.com/o/p/_git/r",
            "https",
            "https://dev.azure.com/o/p/_git/r",
            ("https", "dev.azure.com", None, "o/p/_git/r"),
        ),
        ("ssh://git@host/a.git", "ssh", "ssh://git@host/a.git", ("ssh", "host", None, "a")),
        ("ssh://git@host:2222/a", "ssh", "ssh://git@host:2222/a", ("ssh", "host", 2222, "a")),
        ("git@github.com:org/repo.git", "ssh", "git@github.com:org/repo.git", ("ssh", "github.com", None, "org/repo")),
        ("git@host:~me/repo", "ssh", "git@host:~me/repo", ("ssh", "host", None, "~me/repo")),
    ],
)
def test_https_and_ssh_are_addresses(url, scheme, address, place):
    remote = parse_remote(url, of="it")
    assert (remote.scheme, remote.url, remote.place) == (scheme, address, place)


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% /tmp/x",
        "file:///etc",
        "/srv/git/repo",
        "../repo",
        "http://host/repo",
        "git://host/repo",
        "ftp://host/repo",
        "--upload-pack=touch /tmp/x",
        "-oProxyCommand=x@host:repo",
        "ssh://-oProxyCommand=x/repo",
        "ssh://git@-host/repo",
        "-git@host:repo",
        "https://user:canary@host/repo",
        "https://host/repo?x=canary",
        "https://host/repo#x",
        "https://host/a/../../b",
        "https://host/a//b",
        "https://host",
        "https://host:0/a",
        "https://host:99999/a",
        "https://host/a b",
        "https://host/a\nb",
        "https://host/a'b",
        "https://host/a;b",
        "https://ho\u0131st/a",
        "https://[::1]/a",
        "https://host/" + "a" * 2000,
        "",
        None,
        7,
    ],
)
def test_nothing_else_is_and_it_is_not_quoted(url):
    with pytest.raises(PermanentError, match="repository URL that is not of the form") as caught:
        parse_remote(url, of="Application argocd/app")
    assert Reason.SOURCE_UNSUPPORTED is caught.value.reason
    assert "canary" not in caught.value.message
    assert len(caught.value.message) < 350


@pytest.mark.parametrize("host", ["git.example", "a.git.example", "GIT.example"])
def test_an_allowed_server_and_all_below_it_may_be_asked(host):
    check_host(host, ["git.example"], of="it")
    check_host(host, None, of="it")


@pytest.mark.parametrize("host", ["git.example.evil", "xgit.example", "example", "169.254.169.254", ""])
def test_no_other_server_may_be_asked_where_servers_are_listed(host):
    for allowed in ["git.example"], []:
        with pytest.raises(AccessDenied, match=r"have it added to spec\.gitHosts of a SecretManagerPolicy"):
            check_host(host, allowed, of="it")
