"""The referee: that it finds what it is there to find, and blames nobody without proof."""

import dataclasses

import pytest

from secret_manager_controller.testing.calls import Call
from secret_manager_controller.testing.referee import Ownership, StoredVersions, judge

A, B = "AKIA.a", "AKIA.b"
MEMBERS = {A: "a", B: "b"}
TEAM = "team"
SECRET = "team-TOKEN"


def call(who, at, *, seconds=0.0, operation="PutSecretValue", name=SECRET):
    return Call(int(at * 10), at, who, operation, (name,), "OK", committed=True, seconds=seconds)


def owned(*claims):
    return {TEAM: [Ownership(member, seen) for member, seen in claims]}


def verdict(calls=(), *, ownerships=None, git=(b"1",), values=(b"1",), current=None, crashes=0):
    stored = {SECRET: StoredVersions(values, values[-1] if current is None else current)} if values else {}
    return judge(
        calls,
        members=MEMBERS,
        namespaces={SECRET: TEAM},
        ownerships=ownerships or {},
        git={SECRET: git},
        stored=stored,
        crashes=crashes,
    )


# --- double writers


@pytest.mark.parametrize(
    ("calls", "claims"),
    [
        pytest.param([], [("a", 1)], id="nobody writes"),
        pytest.param([call(A, 2), call(A, 3), call(B, 6)], [("a", 1), ("b", 5)], id="one after the other"),
        pytest.param([call(A, 2), call(B, 6), call(A, 9)], [("a", 1), ("b", 5), ("a", 8)], id="there and back again"),
        pytest.param([call(B, 4.9)], [("a", 1), ("b", 5)], id="the claim is seen after its owner's first write"),
        pytest.param([call(A, 2, seconds=3), call(B, 5)], [("a", 1), ("b", 4)], id="one ends as the other begins"),
        pytest.param([call(A, 4)], [("b", 1), (None, 5), ("b", 5)], id="an owner that nobody saw"),
        pytest.param([call("AKIA.somebody", 3)], [("a", 1)], id="no member"),
        pytest.param([call(B, 3, operation="ListSecrets")], [("a", 1)], id="a read"),
        pytest.param([call(B, 3, name="other-TOKEN")], [("a", 1)], id="a secret of no namespace"),
    ],
)
def test_who_writes_what_it_owns_is_not_blamed(calls, claims):
    assert verdict(calls, ownerships=owned(*claims)).double_writers == ()


def test_a_write_after_the_next_owner_was_seen_is_found():
    found = verdict([call(A, 2), call(A, 5.5)], ownerships=owned(("a", 1), ("b", 5))).double_writers
    assert found == ("team: PutSecretValue of a (call 55) came when a did not own it",)


def test_two_that_take_turns_within_one_ownership_are_found():
    found = verdict([call(A, 2), call(B, 3), call(A, 3.5)], ownerships=owned(("a", 1), ("b", 5))).double_writers
    assert found == ("team: PutSecretValue of a (call 35) came when a did not own it",)


def test_a_write_of_who_never_owned_is_found():
    assert len(verdict([call(B, 3)], ownerships=owned(("a", 1))).double_writers) == 1
    assert len(verdict([call(B, 3)]).double_writers) == 1


def test_calls_that_the_store_carries_out_at_one_time_are_found():
    calls = [call(A, 2, seconds=4, operation="CreateSecret"), call(B, 5)]
    found = verdict(calls, ownerships=owned(("a", 1), ("b", 4))).double_writers
    assert found == ("team: CreateSecret and PutSecretValue of a and b were under way at one time",)


def test_a_long_call_is_remembered_beyond_shorter_ones():
    calls = [call(A, 2, seconds=9), call(A, 3), call(B, 6)]
    assert len(verdict(calls, ownerships=owned(("a", 1), ("b", 4))).double_writers) == 1


# --- lost changes


@pytest.mark.parametrize(
    ("git", "values"),
    [
        pytest.param([b"1"], [b"1"], id="one"),
        pytest.param([b"1", b"2", b"3"], [b"1", b"2", b"3"], id="each"),
        pytest.param([b"1", b"2", b"3"], [b"1", b"3"], id="Git was faster"),
    ],
)
def test_a_store_that_follows_git_lost_nothing(git, values):
    assert verdict(git=git, values=values).clean


@pytest.mark.parametrize(
    ("git", "values", "current", "told"),
    [
        pytest.param([b"1"], [], None, "it is not in the store", id="missing"),
        pytest.param([b"1", b"2"], [b"1"], None, "the store does not hold what Git held last", id="behind"),
        pytest.param([b"1", b"2"], [b"1", b"2"], b"1", "the store does not hold what Git held last", id="not current"),
        pytest.param([b"1", b"2"], [b"2", b"1", b"2"], None, "the store went back to what Git held before", id="back"),
        pytest.param([b"1"], [b"x", b"1"], None, "1 versions were never in Git", id="foreign"),
    ],
)
def test_a_change_that_is_lost_is_found(git, values, current, told):
    found = verdict(git=git, values=values, current=current, crashes=9).lost_changes
    assert found == (f"{SECRET}: {told}",)


# --- extra versions


@pytest.mark.parametrize(("crashes", "found"), [(0, 1), (1, 0)])
def test_a_value_written_twice_must_be_explained_by_a_crash(crashes, found):
    told = verdict(git=[b"1", b"2"], values=[b"1", b"2", b"2"], crashes=crashes)
    assert (len(told.extra_versions), len(told.lost_changes)) == (found, 0)


# --- how it is told


def test_a_verdict_counts_and_quotes_and_shows_no_value():
    calls = [call(A, 2), call(B, 3)]
    told = str(verdict(calls, ownerships=owned(("a", 1)), git=[b"private", b"secret"], values=[b"private"]))
    assert told.splitlines() == [
        "referee: 2 writes by 2 members in 1 namespaces, 0 crashes: 1 double writers, 1 lost changes, 0 extra versions",
        "  team: PutSecretValue of b (call 30) came when b did not own it",
        "  team-TOKEN: the store does not hold what Git held last",
    ]


def test_a_verdict_is_clean_without_findings_only():
    clean = verdict()
    assert clean.clean
    for kind in ("double_writers", "lost_changes", "extra_versions"):
        assert not dataclasses.replace(clean, **{kind: ("something",)}).clean
