"""The plan: every combination of Git's wish, the store's fact and what was recorded."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secret_manager_controller.model.desired import DesiredSecret, DesiredState
from secret_manager_controller.model.inventory import InventoryEntry, settled
from secret_manager_controller.model.observed import ObservedState, OwnerMark, RemoteSecret, RemoteState
from secret_manager_controller.model.plan import (
    Adopt,
    Adoption,
    Conflict,
    Create,
    Plan,
    PlanPolicy,
    Prune,
    Unchanged,
    Update,
    UpdatePolicy,
    Verdict,
    cleanup_plan,
    make_plan,
    names_to_read,
)
from secret_manager_controller.model.secret import NOT_COMPARED, SecretValue

ME = OwnerMark("cluster-1", "team-a/config")
LIVING = OwnerMark("cluster-1", "team-b/config")
GONE = OwnerMark("cluster-1", "team-b/deleted")
ELSEWHERE = OwnerMark("cluster-2", "team-a/config")
POLICY = PlanPolicy(me=ME, living_owners=frozenset({LIVING}))
ADOPT = dataclasses.replace(POLICY, adoption=Adoption.ADOPT)
CREATE_ONLY = dataclasses.replace(POLICY, update_policy=UpdatePolicy.CREATE_ONLY)
PRUNE = dataclasses.replace(POLICY, prune=True)

WANTED = DesiredSecret("db", SecretValue(b"new"), "hash-2")


def remote(name="db", version="v1", mark=ME, state=RemoteState.ACTIVE, differs=False):
    return RemoteSecret(name, version, mark, state, differs)


def observed(*secrets):
    return ObservedState({secret.name: secret for secret in secrets})


def desired(*secrets):
    return DesiredState({secret.name: secret for secret in secrets})


def inventory(*entries):
    return {name: InventoryEntry(name, version, source) for name, version, source in entries}


RECORDED = inventory(("db", "v1", "hash-2"))
OUTDATED = inventory(("db", "v1", "hash-1"))


def decide(found, recorded, policy, verdict=None):
    """Plan for one wanted secret and return its one action."""
    state = observed(*([found] if found else []))
    verdicts = {"db": verdict} if verdict else {}
    (action,) = make_plan(desired(WANTED), state, recorded, policy, verdicts).actions
    return action


@pytest.mark.parametrize(
    ("found", "recorded", "policy", "verdict", "expected"),
    [
        pytest.param(None, {}, POLICY, None, Create(WANTED), id="absent"),
        pytest.param(None, RECORDED, POLICY, None, Create(WANTED), id="deleted by hand"),
        pytest.param(remote(), RECORDED, POLICY, None, Unchanged("db", "v1", "hash-2"), id="as recorded"),
        pytest.param(
            remote(), OUTDATED, POLICY, Verdict("v1", equal=False), Update(WANTED, remote()), id="changed in Git"
        ),
        pytest.param(
            remote(), OUTDATED, POLICY, Verdict("v1", equal=True), Unchanged("db", "v1", "hash-2"), id="encrypted anew"
        ),
        pytest.param(
            remote(version="v2"),
            RECORDED,
            POLICY,
            Verdict("v2", equal=False),
            Update(WANTED, remote(version="v2")),
            id="changed by hand",
        ),
        pytest.param(
            remote(version="v0"),
            RECORDED,
            POLICY,
            Verdict("v1", equal=True),
            Unchanged("db", "v1", "hash-2"),
            id="a stale listing is confirmed, not repaired",
        ),
        pytest.param(
            remote(version="v2"),
            RECORDED,
            POLICY,
            Verdict("v3", equal=False),
            Update(WANTED, remote(version="v3")),
            id="the confirmed version is the one that is replaced",
        ),
        pytest.param(
            remote(differs=True),
            RECORDED,
            POLICY,
            None,
            Update(WANTED, remote(differs=True), write=False, recorded="hash-2"),
            id="other options",
        ),
        pytest.param(
            remote(differs=True),
            OUTDATED,
            POLICY,
            Verdict("v1", equal=True),
            Update(WANTED, remote(differs=True), write=False, recorded="hash-2"),
            id="other options, and encrypted anew",
        ),
        pytest.param(
            remote(differs=True),
            OUTDATED,
            POLICY,
            Verdict("v1", equal=False),
            Update(WANTED, remote(differs=True)),
            id="other options, and changed in Git",
        ),
        pytest.param(
            remote(version="v2", differs=True),
            RECORDED,
            CREATE_ONLY,
            None,
            Update(WANTED, remote(version="v2", differs=True), write=False, recorded=NOT_COMPARED),
            id="other options of a value that is left as it is",
        ),
        pytest.param(remote(version=None), {}, POLICY, None, Update(WANTED, remote(version=None)), id="no version"),
        pytest.param(
            remote(state=RemoteState.DELETION_SCHEDULED),
            RECORDED,
            POLICY,
            None,
            Update(WANTED, remote(state=RemoteState.DELETION_SCHEDULED)),
            id="ours, deletion scheduled",
        ),
        pytest.param(remote(version="v2"), RECORDED, POLICY, None, Update(WANTED, remote(version="v2")), id="vanished"),
        pytest.param(
            remote(mark=None), {}, ADOPT, Verdict("v1", equal=True), Adopt(WANTED, remote(mark=None), write=False),
            id="adopted with Git's value",
        ),
        pytest.param(
            remote(mark=GONE), {}, ADOPT, Verdict("v1", equal=False), Adopt(WANTED, remote(mark=GONE), write=True),
            id="adopted from a dead owner",
        ),
        pytest.param(
            remote(mark=None, version=None), {}, ADOPT, None, Adopt(WANTED, remote(mark=None, version=None), write=True),
            id="adopted without a version",
        ),
        pytest.param(
            remote(version="v2"), RECORDED, CREATE_ONLY, None, Unchanged("db", "v2", NOT_COMPARED),
            id="create only: changed by hand",
        ),
        pytest.param(
            remote(), OUTDATED, CREATE_ONLY, None, Unchanged("db", "v1", "hash-1"), id="create only: changed in Git"
        ),
        pytest.param(
            remote(mark=None), {}, dataclasses.replace(CREATE_ONLY, adoption=Adoption.ADOPT), None,
            Adopt(WANTED, remote(mark=None), write=False, compared=False), id="create only: adopted unread",
        ),
    ],
)  # fmt: skip
def test_one_secret_gets_one_action(found, recorded, policy, verdict, expected):
    assert decide(found, recorded, policy, verdict) == expected


@pytest.mark.parametrize(
    ("found", "policy", "told"),
    [
        pytest.param(remote(mark=None), POLICY, "spec.adoption: Adopt", id="unmarked"),
        pytest.param(remote(mark=GONE), POLICY, "spec.adoption: Adopt", id="dead owner"),
        pytest.param(remote(mark=LIVING), ADOPT, "team-b/config", id="living owner, even with Adopt"),
        pytest.param(remote(mark=ELSEWHERE), ADOPT, "cluster-2", id="another cluster, even with Adopt"),
        pytest.param(
            remote(mark=None, state=RemoteState.DELETION_SCHEDULED),
            ADOPT,
            "deletion",
            id="another's scheduled deletion",
        ),
    ],
)
def test_what_is_not_ours_is_a_conflict_that_says_why(found, policy, told):
    action = decide(found, RECORDED, policy)
    assert isinstance(action, Conflict)
    assert told in action.message


@pytest.mark.parametrize(
    ("found", "recorded", "policy", "read"),
    [
        pytest.param(remote(), RECORDED, POLICY, False, id="same source, same version"),
        pytest.param(remote(version="v2"), RECORDED, POLICY, True, id="version moved"),
        pytest.param(remote(), OUTDATED, POLICY, True, id="source changed"),
        pytest.param(remote(), {}, POLICY, True, id="nothing recorded"),
        pytest.param(remote(mark=None), RECORDED, POLICY, False, id="not ours"),
        pytest.param(remote(mark=None), RECORDED, ADOPT, True, id="to be adopted"),
        pytest.param(remote(mark=LIVING), {}, ADOPT, False, id="a living owner's"),
        pytest.param(remote(version=None), {}, POLICY, False, id="no version"),
        pytest.param(remote(version="v2"), RECORDED, CREATE_ONLY, False, id="create only"),
    ],
)
def test_a_value_is_read_only_where_something_moved(found, recorded, policy, read):
    to_read = names_to_read(desired(WANTED), observed(found), recorded, policy)
    assert to_read == ((found,) if read else ())


def test_what_left_git_stays_unless_prune_is_on():
    store = observed(remote("db"), remote("old"))
    recorded = inventory(("db", "v1", "hash-2"), ("old", "v1", "h"))
    kept = make_plan(desired(WANTED), store, recorded, POLICY, {})
    assert kept.orphans == ("old",)
    assert kept.changes == ()
    pruned = make_plan(desired(WANTED), store, recorded, PRUNE, {})
    assert pruned.changes == (Prune(remote("old")),)
    assert pruned.orphans == ()


def test_only_our_own_living_secrets_are_pruned():
    store = observed(
        remote("unmarked", mark=None),
        remote("anothers", mark=LIVING),
        remote("dead", mark=GONE),
        remote("going", state=RemoteState.DELETION_SCHEDULED),
    )
    recorded = inventory(*((name, "v1", "h") for name in store.secrets))
    assert make_plan(desired(), store, recorded, PRUNE, {}).changes == ()


def leaving(gone, kept, policy):
    """Plan with `gone` owned secrets out of Git and `kept` in it."""
    names = [f"k{number}" for number in range(kept)]
    store = observed(*(remote(name) for name in names), *(remote(f"g{number}") for number in range(gone)))
    wanted = desired(*(DesiredSecret(name, SecretValue(b"v"), "h") for name in names))
    recorded = inventory(*((name, "v1", "h") for name in store.secrets))
    return make_plan(wanted, store, recorded, policy, {})


@pytest.mark.parametrize(
    ("gone", "kept", "held"),
    [
        pytest.param(4, 1, False, id="4 of 5: small inventories are free"),
        pytest.param(3, 3, False, id="3 of 6: half"),
        pytest.param(4, 2, True, id="4 of 6: more than half"),
        pytest.param(50, 50, False, id="50 of 100"),
        pytest.param(51, 49, True, id="51 of 100"),
    ],
)
def test_prune_stops_at_its_bound_until_it_is_confirmed(gone, kept, held):
    plan = leaving(gone, kept, PRUNE)
    assert (len(plan.changes), len(plan.held)) == ((0, gone) if held else (gone, 0))
    confirmed = leaving(gone, kept, dataclasses.replace(PRUNE, prune_confirmed=True))
    assert (len(confirmed.changes), confirmed.held) == (gone, ())


def test_cleanup_deletes_what_carries_our_mark_and_nothing_else():
    store = observed(
        remote("b"), remote("a"), remote("c", mark=None), remote("d", mark=LIVING),
        remote("e", state=RemoteState.DELETION_SCHEDULED),
    )  # fmt: skip
    assert cleanup_plan(store, ME) == Plan((Prune(remote("a")), Prune(remote("b"))))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param([remote()], True, id="as recorded"),
        pytest.param([], False, id="gone"),
        pytest.param([remote(version="v2")], False, id="version moved"),
        pytest.param([remote(version=None)], False, id="no version"),
        pytest.param([remote(mark=None)], False, id="mark removed"),
        pytest.param([remote(differs=True)], False, id="other options"),
        pytest.param([remote(mark=LIVING)], False, id="taken over"),
        pytest.param([remote(state=RemoteState.DELETION_SCHEDULED)], False, id="deletion scheduled"),
        pytest.param([remote(), remote("more")], True, id="others beside it"),
    ],
)
def test_the_store_is_settled_while_it_holds_what_was_recorded(found, expected):
    assert settled(RECORDED, observed(*found), me=ME) is expected


def test_nothing_recorded_is_never_settled_and_create_only_ignores_versions():
    assert not settled({}, observed(), me=ME)
    assert settled(RECORDED, observed(remote(version="v2")), me=ME, ignore_versions=True)


NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"])
REMOTES = st.builds(
    remote,
    NAMES,
    st.sampled_from(["v1", "v2", None]),
    st.sampled_from([ME, LIVING, GONE, ELSEWHERE, None]),
    st.sampled_from(RemoteState),
    st.booleans(),
)
STORES = st.lists(REMOTES, max_size=8).map(lambda found: observed(*found))
WISHES = st.lists(st.builds(DesiredSecret, NAMES, st.just(SecretValue(b"x")), st.sampled_from(["h1", "h2"]))).map(
    lambda wanted: desired(*wanted)
)
RECORDS = st.lists(st.tuples(NAMES, st.sampled_from(["v1", "v2"]), st.sampled_from(["h1", "h2"]))).map(
    lambda entries: inventory(*entries)
)
POLICIES = st.builds(
    PlanPolicy,
    me=st.just(ME),
    living_owners=st.just(frozenset({LIVING})),
    adoption=st.sampled_from(Adoption),
    update_policy=st.sampled_from(UpdatePolicy),
    prune=st.booleans(),
    prune_confirmed=st.booleans(),
)
VERDICTS = st.dictionaries(NAMES, st.builds(Verdict, st.sampled_from(["v1", "v2"]), equal=st.booleans()))


@given(WISHES, STORES, RECORDS, POLICIES, VERDICTS)
def test_no_plan_ever_touches_what_is_not_ours(wanted, store, recorded, policy, verdicts):
    plan = make_plan(wanted, store, recorded, policy, verdicts)
    for change in plan.changes:
        if isinstance(change, Create):
            assert change.secret.name not in store.secrets
        elif isinstance(change, Adopt):
            assert policy.adoption is Adoption.ADOPT
            assert change.current.mark in (None, GONE)
        else:
            assert change.current.mark == ME
        if isinstance(change, Prune):
            assert policy.prune
            assert change.current.name not in wanted.secrets
    names = [action.secret.name if isinstance(action, Create | Update | Adopt) else action.name
             for action in plan.actions if not isinstance(action, Prune)]  # fmt: skip
    assert names == sorted(wanted.secrets)


@given(WISHES, STORES, RECORDS, POLICIES)
def test_a_value_that_is_to_be_overwritten_was_read_or_is_unusable(wanted, store, recorded, policy):
    """Without a verdict nothing usable that is recorded is written over."""
    to_read = {found.name for found in names_to_read(wanted, store, recorded, policy)}
    equal = {name: Verdict(store.secrets[name].version, equal=True) for name in to_read}
    for change in make_plan(wanted, store, recorded, policy, equal).changes:
        if isinstance(change, Update) and change.write:
            assert change.current.version is None or change.current.state is RemoteState.DELETION_SCHEDULED
