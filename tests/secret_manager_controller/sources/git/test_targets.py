"""From targetRevision to a commit."""

import pytest

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.sources.git.targets import find_commit, full_commit

A, B, C, D = (letter * 40 for letter in "abcd")
REFS = {
    "HEAD": A,
    "refs/heads/main": A,
    "refs/heads/release/1.0": B,
    "refs/heads/both": B,
    "refs/tags/both": C,
    "refs/tags/v1.0.0": C,
    "refs/pull/1/head": D,
}


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("HEAD", f"HEAD@sha1:{A}"),
        ("main", f"main@sha1:{A}"),
        ("refs/heads/main", f"main@sha1:{A}"),
        ("release/1.0", f"release/1.0@sha1:{B}"),
        ("both", f"both@sha1:{B}"),
        ("refs/tags/both", f"both@sha1:{C}"),
        ("v1.0.0", f"v1.0.0@sha1:{C}"),
        ("refs/pull/1/head", f"refs/pull/1/head@sha1:{D}"),
        ("1.*", f"v1.0.0@sha1:{C}"),
    ],
)
def test_a_name_is_a_commit(target, told):
    assert str(find_commit(target, REFS, of="it")) == told


def test_a_commit_in_full_is_itself():
    assert str(full_commit(A.upper())) == f"sha1:{A}"
    assert str(full_commit("e" * 64)) == "sha256:" + "e" * 64
    assert full_commit("a" * 39) is None


@pytest.mark.parametrize(
    ("target", "reason", "told"),
    [
        ("gone", Reason.REVISION_NOT_FOUND, "'gone', which is no branch, tag or matching version"),
        ("2.*", Reason.REVISION_NOT_FOUND, "no branch, tag or matching version"),
        ("heads/main", Reason.REVISION_NOT_FOUND, "no branch"),
        ("abcdef0", Reason.SOURCE_UNSUPPORTED, "an abbreviated commit; give all of its 40 digits"),
    ],
)
def test_what_is_not_there_is_told(target, reason, told):
    with pytest.raises(PermanentError, match=told) as caught:
        find_commit(target, REFS, of="Application a/b")
    assert reason is caught.value.reason
