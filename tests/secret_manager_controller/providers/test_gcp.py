"""What the Google adapter does beyond the contract: how many requests, which ones, and what it makes of the answers."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from google.cloud.secretmanager_v1.types import resources

from lease_sharding.fence import OwnershipLost, SoleMemberFence
from secret_manager_controller.errors import ControllerError, PermanentError, Reason, RetryableError
from secret_manager_controller.model.observed import OwnerMark, RemoteSecret
from secret_manager_controller.model.secret import SecretName
from secret_manager_controller.providers import gcp_api, gcp_client
from secret_manager_controller.providers.budget import Budgets
from secret_manager_controller.providers.gcp import GcpReplication
from secret_manager_controller.providers.gcp_marks import OWNER_ANNOTATION, WRITE_ANNOTATION, annotations_of, labels_of
from secret_manager_controller.providers.lending import Lender
from secret_manager_controller.testing.contract_subject import ME, NEIGHBOUR, REVISION, CountingFence, desired

FENCE = SoleMemberFence()
MINE = {"labels": labels_of(ME), "annotations": annotations_of(ME)}
A = SecretName("a")
KEY = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k"


async def create(provider, name, value=b"v", *, revision=REVISION, mark=ME):
    return await provider.create(desired(name, value), mark=mark, revision=revision, fence=FENCE)


async def update(provider, name, value, *, current=None, revision=REVISION, fence=FENCE):
    current = current or await look(provider, name)
    return await provider.update(desired(name, value), current=current, mark=ME, revision=revision, fence=fence)


async def look(provider, name):
    return (await provider.observe([SecretName(name)], mark=ME)).secrets[SecretName(name)]


def counted(gcp):
    """Return how many requests of each operation were made, without logins, and forget them."""
    count = Counter(call.operation for call in gcp.calls() if call.operation != "JwtBearer")
    gcp.clear_calls()
    return count


class TestRequests:
    """How many requests 100 secrets cost."""

    NAMES = tuple(SecretName(f"s-{number:03}") for number in range(100))

    @pytest.fixture(autouse=True)
    async def _created(self, gcp, gcp_provider):
        await asyncio.gather(*(create(gcp_provider, name) for name in self.NAMES))
        gcp.clear_calls()

    async def test_new_secrets_are_listed_once_and_created(self, gcp, make_gcp):
        gcp.reset()
        provider = make_gcp()
        await provider.observe(self.NAMES, mark=ME)
        await asyncio.gather(*(create(provider, name) for name in self.NAMES))
        assert counted(gcp) == {"ListSecrets": 2, "CreateSecret": 100, "AddSecretVersion": 100}

    async def test_nothing_new_costs_a_listing_and_a_look_each(self, gcp, gcp_provider):
        await gcp_provider.observe(self.NAMES, mark=ME)
        assert counted(gcp) == {"ListSecrets": 1, "GetSecretVersion": 100}

    async def test_one_change_costs_four_more(self, gcp, gcp_provider):
        observed = await gcp_provider.observe(self.NAMES, mark=ME)
        await update(gcp_provider, "s-000", b"w", current=observed.secrets["s-000"])
        assert counted(gcp) == {
            "ListSecrets": 1,
            "GetSecretVersion": 100,
            "GetSecret": 1,
            "AccessSecretVersion": 1,
            "UpdateSecret": 1,
            "AddSecretVersion": 1,
        }

    async def test_drift_of_one_costs_one_read_more(self, gcp, gcp_provider):
        gcp.put_by_hand("s-000", b"by hand")
        observed = await gcp_provider.observe(self.NAMES, mark=ME)
        await gcp_provider.read([observed.secrets["s-000"]])
        assert counted(gcp) == {"ListSecrets": 1, "GetSecretVersion": 100, "AccessSecretVersion": 1}

    async def test_a_prune_costs_two_more(self, gcp, gcp_provider):
        observed = await gcp_provider.observe(self.NAMES, mark=ME)
        await gcp_provider.delete(observed.secrets["s-000"], fence=FENCE)
        assert counted(gcp) == {"ListSecrets": 1, "GetSecretVersion": 100, "GetSecret": 1, "DeleteSecret": 1}

    async def test_objects_that_declare_different_things_share_a_login_and_a_listing(self, gcp, make_gcp):
        shared = {"budgets": Budgets(), "shared": Lender()}
        providers = [make_gcp(labels={"team": str(number)}, **shared) for number in range(20)]
        marks = [replace(ME, owner=f"team-a/app-{number}") for number in range(20)]
        await asyncio.gather(*(each.observe([], mark=mark) for each, mark in zip(providers, marks, strict=True)))
        assert Counter(call.operation for call in gcp.calls()) == {"JwtBearer": 1, "ListSecrets": 1}

    async def test_what_is_shared_works_until_the_last_has_left(self, gcp, make_gcp):
        shared = {"budgets": Budgets(), "shared": Lender()}
        first, second = make_gcp(**shared), make_gcp(labels={"team": "a"}, **shared)
        await first.aclose()
        await second.observe([], mark=ME)
        await second.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await second.read([RemoteSecret(A, None, ME)])

    async def test_objects_that_look_at_the_same_time_share_listings(self, gcp, gcp_provider):
        marks = [replace(ME, owner=f"team-a/app-{number}") for number in range(30)]
        for mark in marks:
            await create(gcp_provider, mark.owner.rpartition("/")[2], mark=mark)
        gcp.clear_calls()
        observed = await asyncio.gather(*(gcp_provider.observe([], mark=mark) for mark in marks))
        assert [set(each.secrets) for each in observed] == [{mark.owner.rpartition("/")[2]} for mark in marks]
        assert counted(gcp) == {"ListSecrets": 1, "GetSecretVersion": 30}


class TestObserve:
    async def test_what_a_stale_listing_lacks_is_looked_at(self, gcp, gcp_provider):
        gcp.stale_listing(True)
        version = await create(gcp_provider, "a")
        assert await look(gcp_provider, "a") == RemoteSecret(A, version, ME)

    @pytest.mark.parametrize(("count", "requests"), [(10, {"GetSecret": 10}), (11, {"ListSecrets": 1})])
    async def test_many_that_are_not_ours_are_listed_instead(self, gcp, gcp_provider, count, requests):
        names = [SecretName(f"s-{number}") for number in range(count)]
        for name in names[::2]:
            gcp.put_by_hand(name, b"v")
        observed = await gcp_provider.observe(names, mark=ME)
        assert set(observed.secrets) == set(names[::2])
        assert counted(gcp) == Counter({"ListSecrets": 1, "GetSecretVersion": len(names[::2])}) + Counter(requests)

    async def test_a_latest_that_is_out_of_date_does_not_hide_what_we_wrote(self, gcp, gcp_provider):
        await create(gcp_provider, "a")
        gcp.stale_latest(True)
        version = await update(gcp_provider, "a", b"w")
        seen = await look(gcp_provider, "a")
        values = await gcp_provider.read([seen])
        assert (seen.version, values[A].version, values[A].value.expose()) == (version, version, b"w")

    async def test_a_secret_that_was_made_anew_has_its_own_versions(self, gcp, gcp_provider):
        await create(gcp_provider, "a")
        await update(gcp_provider, "a", b"w")
        gcp.destroy("a")
        gcp.put_by_hand("a", b"again", **MINE)
        seen = await look(gcp_provider, "a")
        values = await gcp_provider.read([seen])
        assert (seen.version, values[A].version, values[A].value.expose()) == ("1", "1", b"again")

    async def test_short_pages_are_followed(self, gcp, gcp_provider):
        for name in ("a", "b", "c"):
            await create(gcp_provider, name)
        gcp.short_pages(1)
        observed = await gcp_provider.observe([], mark=ME)
        assert set(observed.secrets) == {"a", "b", "c"}

    @pytest.mark.parametrize("state", ["DISABLED", "DESTROYED"])
    async def test_a_newest_version_that_cannot_be_read_is_none(self, gcp, gcp_provider, state):
        await create(gcp_provider, "a")
        await update(gcp_provider, "a", b"w")
        gcp.change_version("a", state)
        seen = await look(gcp_provider, "a")
        assert seen == RemoteSecret(A, None, ME)
        assert await gcp_provider.read([seen]) == {}

    @pytest.mark.parametrize(
        "metadata",
        [
            pytest.param({"labels": labels_of(ME)}, id="annotations removed"),
            pytest.param({"annotations": annotations_of(ME)}, id="labels removed"),
            pytest.param({**MINE, "annotations": annotations_of(NEIGHBOUR)}, id="they differ"),
            pytest.param({**MINE, "labels": labels_of(ME) | {"managed-by": "terraform"}}, id="another manager"),
        ],
    )
    async def test_half_a_mark_is_none(self, gcp, gcp_provider, metadata):
        gcp.put_by_hand("a", b"v", **metadata)
        assert (await look(gcp_provider, "a")).mark is None
        assert (await gcp_provider.observe([], mark=ME)).secrets == {}

    async def test_a_mark_of_any_length_and_alphabet_is_found_again(self, gcp_provider):
        mark = OwnerMark("5D0A-Cluster", "team-ä/" + "x" * 250)
        version = await create(gcp_provider, "a", mark=mark)
        observed = await gcp_provider.observe([], mark=mark)
        assert observed.secrets == {A: RemoteSecret(A, version, mark)}

    @pytest.mark.parametrize("mark", [OwnerMark("", "n/x"), OwnerMark("c", "n/" + "x" * 1024)])
    async def test_a_mark_that_cannot_be_written_is_refused(self, gcp, gcp_provider, mark):
        with pytest.raises(PermanentError, match="owner mark") as raised:
            await gcp_provider.observe([], mark=mark)
        assert raised.value.reason is Reason.STORE_REFUSED
        assert gcp.calls() == []


class TestRead:
    async def test_a_refused_value_is_told(self, gcp, gcp_provider):
        for name in ("a", "b"):
            await create(gcp_provider, name)
        gcp.unreadable("b", "PERMISSION_DENIED")
        with pytest.raises(PermanentError, match=r"AccessSecretVersion for 'b' .* secretmanager\.versions\.access"):
            await gcp_provider.read([RemoteSecret(SecretName(name), None, ME) for name in ("a", "b")])

    async def test_a_value_that_was_damaged_on_its_way_is_read_again(self, gcp, gcp_provider, monkeypatch):
        await create(gcp_provider, "a")
        gcp.clear_calls()
        real, seen = gcp_api.checksum, []

        def damaged_once(data):
            seen.append(data)
            return real(data) if len(seen) > 1 else 0

        monkeypatch.setattr(gcp_api, "checksum", damaged_once)
        values = await gcp_provider.read([RemoteSecret(A, None, ME)])
        assert values[A].value.expose() == b"v"
        assert counted(gcp) == {"AccessSecretVersion": 2}


class TestCreate:
    async def test_the_value_travels_with_its_checksum_and_the_write_with_the_secret(self, gcp, gcp_provider):
        await create(gcp_provider, "a", revision="main@sha1:abcdef0123456789" + "0" * 24)
        stored = gcp.secrets()["a"]
        assert stored.labels == labels_of(ME)
        assert stored.annotations[OWNER_ANNOTATION] == ME.owner
        assert stored.annotations[WRITE_ANNOTATION].startswith("abcdef012345-")

    async def test_an_earlier_creation_with_this_value_counts(self, make_gcp):
        version = await create(make_gcp(), "a")
        assert await create(make_gcp(), "a") == version

    async def test_an_earlier_creation_with_another_value_is_left_to_the_next_look(self, gcp, gcp_provider):
        await create(gcp_provider, "a", b"old")
        with pytest.raises(RetryableError) as raised:
            await create(gcp_provider, "a", b"new")
        assert raised.value.reason is Reason.STORE_CHANGED
        assert gcp.values() == {"a": b"old"}

    async def test_what_another_member_left_without_a_value_is_left_to_the_next_look(self, gcp, make_gcp):
        """He may be about to add his; the next pass sees a secret of ours without a version, and claims it."""
        gcp.fail("AddSecretVersion", "UNAVAILABLE", times=3)
        with pytest.raises(RetryableError):
            await create(make_gcp(), "a")
        other = make_gcp()
        with pytest.raises(RetryableError) as raised:
            await create(other, "a")
        assert raised.value.reason is Reason.STORE_CHANGED
        seen = await look(other, "a")
        assert seen == RemoteSecret(A, None, ME)
        assert await update(other, "a", b"v", current=seen) == "1"
        assert gcp.values() == {"a": b"v"}

    async def test_a_secret_that_is_gone_again_is_left_to_the_next_look(self, gcp, gcp_provider):
        gcp.fail("CreateSecret", "ALREADY_EXISTS")
        with pytest.raises(RetryableError) as raised:
            await create(gcp_provider, "a")
        assert raised.value.reason is Reason.STORE_CHANGED

    async def test_a_value_that_is_too_large_is_refused_without_being_told(self, gcp_provider):
        with pytest.raises(PermanentError) as raised:
            await create(gcp_provider, "a", b"x" * 65_537)
        assert raised.value.reason is Reason.STORE_REFUSED
        assert "x" * 10 not in str(raised.value)

    async def test_labels_of_the_user_stand_beside_ours_and_never_over_them(self, gcp, make_gcp):
        provider = make_gcp(labels={"team": "a", "managed-by": "someone"})
        await create(provider, "a")
        assert gcp.labels("a") == labels_of(ME) | {"team": "a"}

    @pytest.mark.parametrize(
        ("replication", "expected"),
        [
            pytest.param(GcpReplication(), {"automatic": {}}, id="automatic"),
            pytest.param(
                GcpReplication(kms_key=KEY),
                {"automatic": {"customer_managed_encryption": {"kms_key_name": KEY}}},
                id="automatic with a key",
            ),
            pytest.param(
                GcpReplication(replicas=(("europe-west1", KEY), ("europe-west4", None))),
                {
                    "user_managed": {
                        "replicas": [
                            {"location": "europe-west1", "customer_managed_encryption": {"kms_key_name": KEY}},
                            {"location": "europe-west4"},
                        ]
                    }
                },
                id="places",
            ),
        ],
    )
    async def test_it_is_kept_where_the_object_says(self, gcp, make_gcp, replication, expected):
        await create(make_gcp(replication=replication), "a")
        stored = resources.Replication.pb().FromString(gcp.secrets()["a"].replication)
        assert stored == resources.Replication.pb()(**expected)


class TestDeclared:
    async def test_a_key_is_set_without_another_version(self, gcp, make_gcp):
        await create(make_gcp(), "a")
        provider = make_gcp(replication=GcpReplication(kms_key=KEY))
        seen = await look(provider, "a")
        assert seen.options_differ
        await provider.adopt(seen, mark=ME, fence=FENCE)
        assert not (await look(provider, "a")).options_differ
        stored = resources.Replication.pb().FromString(gcp.secrets()["a"].replication)
        assert stored.automatic.customer_managed_encryption.kms_key_name == KEY
        assert gcp.versions("a") == 1

    async def test_what_somebody_changed_in_between_is_left_to_the_next_look(self, gcp, make_gcp):
        provider = make_gcp(labels={"team": "a"})
        await create(make_gcp(), "a")
        seen = await look(provider, "a")
        gcp.fail("UpdateSecret", "FAILED_PRECONDITION")
        with pytest.raises(RetryableError) as raised:
            await provider.adopt(seen, mark=ME, fence=FENCE)
        assert raised.value.reason is Reason.STORE_CHANGED

    async def test_the_last_label_that_finds_no_room_is_told(self, gcp, make_gcp):
        crowd = {f"l{number}": "x" for number in range(61)}
        await create(make_gcp(), "a")
        await create(make_gcp(), "b")
        for name, count in (("a", 60), ("b", 61)):
            labels = gcp.labels(name) | dict(list(crowd.items())[:count])
            gcp.change_labels(name, labels=labels, annotations=gcp.annotations(name))
        provider = make_gcp(labels={"team": "a"})
        await provider.adopt(await look(provider, "a"), mark=ME, fence=FENCE)
        with pytest.raises(PermanentError, match="64 labels") as raised:
            await provider.adopt(await look(provider, "b"), mark=ME, fence=FENCE)
        assert raised.value.reason is Reason.STORE_REFUSED


class TestUpdate:
    async def test_what_others_wrote_beside_the_value_stays(self, gcp, gcp_provider):
        gcp.put_by_hand("a", b"v", labels=labels_of(ME) | {"team": "x"}, annotations=annotations_of(ME) | {"note": "y"})
        await update(gcp_provider, "a", b"w")
        assert gcp.labels("a")["team"] == "x"
        assert gcp.annotations("a")["note"] == "y"

    async def test_a_secret_whose_metadata_moved_since_the_look_is_left(self, gcp, gcp_provider):
        await create(gcp_provider, "a")
        seen = await look(gcp_provider, "a")
        gcp.change_labels("a", labels=labels_of(ME) | {"team": "x"}, annotations=gcp.annotations("a"))
        with pytest.raises(RetryableError) as raised:
            await update(gcp_provider, "a", b"w", current=seen)
        assert raised.value.reason is Reason.STORE_CHANGED
        assert await update(gcp_provider, "a", b"w") == "2"

    async def test_a_mark_that_was_removed_since_the_look_stops_the_write(self, gcp, gcp_provider):
        await create(gcp_provider, "a")
        seen = await look(gcp_provider, "a")
        gcp.change_labels("a")
        with pytest.raises(RetryableError) as raised:
            await update(gcp_provider, "a", b"w", current=seen)
        assert raised.value.reason is Reason.STORE_CHANGED
        assert gcp.values() == {"a": b"v"}

    async def test_of_two_members_who_saw_the_same_one_writes(self, gcp, make_gcp):
        members = [make_gcp(), make_gcp()]
        await create(members[0], "a")
        for attempt in range(5):
            seen = [await look(member, "a") for member in members]
            writes = [
                update(member, "a", f"{attempt}-{number}".encode(), current=current)
                for number, (member, current) in enumerate(zip(members, seen, strict=True))
            ]
            outcomes = await asyncio.gather(*writes, return_exceptions=True)
            assert sorted(type(outcome).__name__ for outcome in outcomes) == ["RetryableError", "str"]
            assert gcp.versions("a") == attempt + 2

    async def test_the_same_write_of_two_members_is_one_version(self, gcp, make_gcp):
        members = [make_gcp(), make_gcp()]
        await create(members[0], "a")
        seen = [await look(member, "a") for member in members]
        writes = [update(member, "a", b"w", current=now) for member, now in zip(members, seen, strict=True)]
        await asyncio.gather(*writes, return_exceptions=True)
        assert gcp.versions("a") == 2

    @pytest.mark.parametrize("state", ["DISABLED", "DESTROYED"])
    async def test_a_newest_version_that_cannot_be_read_gets_another(self, gcp, gcp_provider, state):
        await create(gcp_provider, "a")
        gcp.change_version("a", state)
        assert await update(gcp_provider, "a", b"v") == "2"
        assert gcp.values() == {"a": b"v"}

    @pytest.mark.parametrize(("by_hand", "outcome"), [(b"w", "2"), (b"x", None)], ids=["this value", "another"])
    async def test_what_was_added_by_hand_since_the_look_counts_if_it_is_this_value(
        self, gcp, gcp_provider, by_hand, outcome
    ):
        await create(gcp_provider, "a")
        seen = await look(gcp_provider, "a")
        gcp.put_by_hand("a", by_hand)
        try:
            version = await update(gcp_provider, "a", b"w", current=seen)
        except RetryableError as error:
            assert error.reason is Reason.STORE_CHANGED
            version = None
        assert version == outcome
        assert gcp.versions("a") == 2

    async def test_many_versions_since_the_look_are_left_to_the_next_one(self, gcp, gcp_provider):
        await create(gcp_provider, "a")
        seen = await look(gcp_provider, "a")
        for _ in range(6):
            gcp.put_by_hand("a", b"w")
        with pytest.raises(RetryableError):
            await update(gcp_provider, "a", b"w", current=seen)
        assert gcp.versions("a") == 7

    async def test_a_listing_that_is_out_of_date_does_not_stop_the_next_write(self, gcp, gcp_provider):
        """Its etag is older than the one that our own write left."""
        await create(gcp_provider, "a")
        gcp.stale_listing(True)
        assert await update(gcp_provider, "a", b"w") == "2"
        assert await update(gcp_provider, "a", b"x") == "3"

    async def test_a_latest_that_is_out_of_date_makes_no_second_version(self, gcp, make_gcp):
        """Another member, which wrote nothing itself, takes the older value for the newest."""
        first, other = make_gcp(), make_gcp()
        await create(first, "a")
        gcp.stale_latest(True)
        await update(first, "a", b"w")
        assert await update(other, "a", b"w") == "2"
        assert gcp.versions("a") == 2

    async def test_a_secret_that_is_deleted_in_the_moment_of_its_write_is_told(self, gcp, gcp_provider):
        await create(gcp_provider, "a")
        gcp.fail("AddSecretVersion", "NOT_FOUND")
        with pytest.raises(RetryableError) as raised:
            await update(gcp_provider, "a", b"w")
        assert raised.value.reason is Reason.STORE_CHANGED

    async def test_a_newest_version_that_cannot_be_read_any_more_is_left_to_the_next_look(self, gcp, gcp_provider):
        await create(gcp_provider, "a")
        seen = await look(gcp_provider, "a")
        gcp.put_by_hand("a", b"by hand")
        gcp.change_version("a", "DISABLED")
        with pytest.raises(RetryableError) as raised:
            await update(gcp_provider, "a", b"w", current=seen)
        assert raised.value.reason is Reason.STORE_CHANGED
        assert await update(gcp_provider, "a", b"w") == "3"

    async def test_a_write_that_timed_out_and_was_done_counts(self, gcp, gcp_provider):
        await create(gcp_provider, "a")
        gcp.fail("AddSecretVersion", "DEADLINE_EXCEEDED", commit=True)
        assert await update(gcp_provider, "a", b"w") == "2"
        assert gcp.versions("a") == 2

    async def test_a_write_that_timed_out_is_not_made_again(self, gcp, gcp_provider, monkeypatch):
        """It may still arrive: only the next pass tells."""
        await create(gcp_provider, "a")
        seen = await look(gcp_provider, "a")
        monkeypatch.setattr(gcp_api, "REQUEST_TIMEOUT", 0.2)
        gcp.hang("AddSecretVersion", 0.4)
        with pytest.raises(RetryableError, match="did not answer") as raised:
            await update(gcp_provider, "a", b"w", current=seen)
        assert raised.value.reason is Reason.STORE_UNAVAILABLE
        await asyncio.sleep(0.4)
        assert gcp.versions("a") == 2
        assert await update(gcp_provider, "a", b"w", current=seen) == "2"
        assert gcp.versions("a") == 2


class TestAdoptAndDelete:
    async def test_what_is_ours_already_is_not_written(self, gcp, gcp_provider):
        await create(gcp_provider, "a")
        gcp.clear_calls()
        await gcp_provider.adopt(RemoteSecret(A, None, None), mark=ME, fence=FENCE)
        assert counted(gcp) == {"GetSecret": 1}

    @pytest.mark.parametrize("method", ["adopt", "delete"])
    async def test_what_another_took_since_the_look_is_his(self, gcp, gcp_provider, method):
        mark = None if method == "adopt" else ME
        gcp.put_by_hand("a", b"v", labels=labels_of(NEIGHBOUR), annotations=annotations_of(NEIGHBOUR))
        marks = {"mark": ME} if method == "adopt" else {}
        with pytest.raises(RetryableError) as raised:
            await getattr(gcp_provider, method)(RemoteSecret(A, None, mark), **marks, fence=FENCE)
        assert raised.value.reason is Reason.STORE_CHANGED
        assert gcp.labels("a") == labels_of(NEIGHBOUR)

    async def test_what_is_changed_in_the_moment_of_its_deletion_stays(self, gcp, gcp_provider):
        version = await create(gcp_provider, "a")
        gcp.fail("DeleteSecret", "FAILED_PRECONDITION")
        with pytest.raises(RetryableError) as raised:
            await gcp_provider.delete(RemoteSecret(A, version, ME), fence=FENCE)
        assert raised.value.reason is Reason.STORE_CHANGED


class TestRetention:
    async def test_older_versions_are_disabled_and_at_the_next_write_destroyed(self, gcp, make_gcp):
        provider = make_gcp(keep_versions=2)
        await create(provider, "a")
        states = []
        for value in (b"w", b"x", b"y"):
            await update(provider, "a", value)
            states.append([state[:3] for state in gcp.secrets()["a"].states])
        assert states == [["ENA"] * 2, ["DIS", "ENA", "ENA"], ["DES", "DIS", "ENA", "ENA"]]
        assert gcp.values() == {"a": b"y"}

    async def test_many_old_ones_go_oldest_first_over_several_writes(self, gcp, make_gcp):
        gcp.put_by_hand("a", b"v", **MINE)
        for _ in range(14):
            gcp.put_by_hand("a", b"v")
        gcp.short_pages(4)
        await update(make_gcp(keep_versions=1), "a", b"w")
        assert Counter(gcp.secrets()["a"].states) == {"DISABLED": 10, "ENABLED": 6}
        assert gcp.secrets()["a"].states[:10] == ("DISABLED",) * 10

    async def test_fewer_are_kept_as_soon_as_the_object_says_so(self, gcp, make_gcp):
        await create(make_gcp(), "a")
        for value in (b"w", b"x"):
            await update(make_gcp(), "a", value)
        provider = make_gcp(keep_versions=2)
        before = await look(provider, "a")
        assert before.options_differ
        await provider.adopt(before, mark=ME, fence=FENCE)
        assert gcp.secrets()["a"].states == ("DISABLED", "ENABLED", "ENABLED")
        assert await look(provider, "a") == RemoteSecret(A, before.version, ME)
        assert (await look(make_gcp(keep_versions=1), "a")).options_differ

    async def test_many_old_ones_take_several_passes_which_destroy_none(self, gcp, make_gcp):
        gcp.put_by_hand("a", b"v", **MINE)
        for _ in range(14):
            gcp.put_by_hand("a", b"v")
        provider, left = make_gcp(keep_versions=1), []
        while (seen := await look(provider, "a")).options_differ:
            await provider.adopt(seen, mark=ME, fence=FENCE)
            left.append(Counter(gcp.secrets()["a"].states)["ENABLED"])
        assert left == [5, 1]
        assert Counter(gcp.secrets()["a"].states) == {"DISABLED": 14, "ENABLED": 1}

    async def test_what_a_new_secret_keeps_is_told_at_once(self, gcp, make_gcp):
        provider = make_gcp(keep_versions=2)
        await create(provider, "a")
        assert not (await look(provider, "a")).options_differ

    async def test_a_missing_permission_is_told_where_no_write_depends_on_it(self, gcp, make_gcp):
        version = await create(make_gcp(), "a")
        await update(make_gcp(), "a", b"w")
        provider = make_gcp(keep_versions=1)
        gcp.fail("DisableSecretVersion", "PERMISSION_DENIED")
        with pytest.raises(PermanentError) as raised:
            await provider.adopt(await look(provider, "a"), mark=ME, fence=FENCE)
        assert (raised.value.reason, version) == (Reason.STORE_ACCESS_DENIED, "1")
        assert (await look(provider, "a")).options_differ

    async def test_all_stay_unless_the_object_says_otherwise(self, gcp, gcp_provider):
        await create(gcp_provider, "a")
        gcp.clear_calls()
        await update(gcp_provider, "a", b"w")
        assert counted(gcp)["ListSecretVersions"] == 0

    @pytest.mark.parametrize("operation", ["ListSecretVersions", "DisableSecretVersion"])
    async def test_what_goes_wrong_with_them_does_not_fail_the_write(self, gcp, make_gcp, operation, caplog):
        provider = make_gcp(keep_versions=1)
        await create(provider, "a")
        gcp.fail(operation, "PERMISSION_DENIED")
        assert await update(provider, "a", b"w") == "2"
        assert [record.reason for record in caplog.records] == [Reason.STORE_ACCESS_DENIED]
        await update(provider, "a", b"x")
        assert gcp.secrets()["a"].states == ("DISABLED", "DISABLED", "ENABLED")

    async def test_the_fence_holds_for_them_too(self, gcp, make_gcp):
        provider = make_gcp(keep_versions=1)
        await create(provider, "a")
        with pytest.raises(OwnershipLost):
            await update(provider, "a", b"w", fence=CountingFence(2))
        assert gcp.secrets()["a"].states == ("ENABLED", "ENABLED")


REFUSALS = {
    "PERMISSION_DENIED": (Reason.STORE_ACCESS_DENIED, r"grant secretmanager\.versions\.add to .*secretmanager\.admin"),
    "PERMISSION_DENIED/IAM_PERMISSION_DENIED": (Reason.STORE_ACCESS_DENIED, r"grant secretmanager\.versions\.add"),
    "PERMISSION_DENIED/SERVICE_DISABLED": (Reason.STORE_ACCESS_DENIED, "gcloud services enable"),
    "PERMISSION_DENIED/CONSUMER_INVALID": (Reason.STORE_ACCESS_DENIED, "check spec.provider.gcp.projectId"),
    "PERMISSION_DENIED/BILLING_DISABLED": (Reason.STORE_ACCESS_DENIED, "billing account"),
    "PERMISSION_DENIED/SECURITY_POLICY_VIOLATED": (Reason.STORE_ACCESS_DENIED, "VPC Service Controls"),
    "UNAUTHENTICATED": (Reason.CREDENTIALS_UNAVAILABLE, "does not accept the token of the service account's key"),
    "INVALID_ARGUMENT": (Reason.STORE_REFUSED, r"refuses AddSecretVersion for 'a' in project test-project"),
    "FAILED_PRECONDITION": (Reason.STORE_REFUSED, "KMS key may be disabled"),
    "OUT_OF_RANGE": (Reason.STORE_REFUSED, "OUT_OF_RANGE"),
}
PASSING = {
    "RESOURCE_EXHAUSTED": Reason.RATE_LIMITED,
    "UNAVAILABLE": Reason.STORE_UNAVAILABLE,
    "INTERNAL": Reason.STORE_UNAVAILABLE,
    "ABORTED": Reason.STORE_UNAVAILABLE,
    "UNKNOWN": Reason.STORE_UNAVAILABLE,
}


class TestRefusals:
    @pytest.mark.parametrize(("code", "expected"), REFUSALS.items(), ids=REFUSALS.keys())
    async def test_a_refusal_says_what_mends_it(self, gcp, gcp_provider, code, expected):
        reason, text = expected
        await create(gcp_provider, "a")
        current = await look(gcp_provider, "a")
        gcp.fail("AddSecretVersion", code, times=2)
        with pytest.raises(PermanentError, match=text) as raised:
            await update(gcp_provider, "a", b"w", current=current)
        assert raised.value.reason is reason
        assert "A fault that the test asked for" not in str(raised.value)

    @pytest.mark.parametrize(("code", "reason"), PASSING.items(), ids=PASSING.keys())
    async def test_what_passes_is_tried_three_times(self, gcp, gcp_provider, code, reason):
        gcp.fail("CreateSecret", code, times=9)
        with pytest.raises(RetryableError) as raised:
            await create(gcp_provider, "a")
        assert (raised.value.reason, raised.value.retry_after) == (reason, None)
        assert len(gcp.writes()) == 3

    @pytest.mark.parametrize("code", PASSING)
    @pytest.mark.parametrize("operation", ["CreateSecret", "AddSecretVersion"])
    async def test_what_passed_leaves_no_trace(self, gcp, gcp_provider, operation, code):
        gcp.fail(operation, code, times=2)
        await create(gcp_provider, "a")
        assert gcp.values() == {"a": b"v"}
        assert gcp.versions("a") == 1

    async def test_a_long_wish_to_wait_is_left_to_the_caller(self, gcp, gcp_provider):
        gcp.fail("CreateSecret", "RESOURCE_EXHAUSTED", times=9, retry_after=60)
        with pytest.raises(RetryableError) as raised:
            await create(gcp_provider, "a")
        assert raised.value.retry_after == 60.0
        assert len(gcp.writes()) == 1

    async def test_a_short_wish_to_wait_is_heeded(self, gcp, gcp_provider):
        gcp.fail("CreateSecret", "RESOURCE_EXHAUSTED", retry_after=0.1)
        await create(gcp_provider, "a")
        first, second, _ = gcp.writes()
        assert second.at - first.at >= 0.1

    @pytest.mark.parametrize(
        ("operation", "permission"),
        {
            "ListSecrets": "secretmanager.secrets.list",
            "GetSecret": "secretmanager.secrets.get",
            "CreateSecret": "secretmanager.secrets.create",
            "AddSecretVersion": "secretmanager.versions.add",
            "GetSecretVersion": "secretmanager.versions.get",
            "AccessSecretVersion": "secretmanager.versions.access",
            "UpdateSecret": "secretmanager.secrets.update",
            "DeleteSecret": "secretmanager.secrets.delete",
        }.items(),
    )
    async def test_the_permission_that_one_request_lacks_is_named(self, gcp, gcp_provider, operation, permission):
        gcp.fail(operation, "PERMISSION_DENIED/IAM_PERMISSION_DENIED", times=99)
        with pytest.raises(PermanentError, match=permission.replace(".", r"\.")) as raised:
            await self._do_everything(gcp_provider)
        assert raised.value.reason is Reason.STORE_ACCESS_DENIED

    async def test_a_project_that_is_not_there_is_told(self, make_gcp):
        with pytest.raises(PermanentError, match="there is no project other-project") as raised:
            await make_gcp(project="other-project").observe([], mark=ME)
        assert raised.value.reason is Reason.STORE_ACCESS_DENIED

    async def _do_everything(self, provider):
        await provider.observe([A], mark=ME)
        await create(provider, "a")
        await update(provider, "a", b"w")
        await provider.delete(await look(provider, "a"), fence=FENCE)


class TestQuota:
    @pytest.fixture(autouse=True)
    def _short_rest(self, monkeypatch):
        monkeypatch.setattr(gcp_client, "THROTTLED_REST", 0.05)

    async def test_a_quota_that_others_used_up_is_told_and_heeded(self, gcp, gcp_provider, monkeypatch):
        monkeypatch.setattr(gcp_client, "THROTTLED_REST", 100.0)
        gcp.quotas(writes=0)
        for name in ("a", "b"):
            with pytest.raises(RetryableError) as raised:
                await create(gcp_provider, name)
            assert raised.value.reason is Reason.RATE_LIMITED
        assert {call.names for call in gcp.writes()} == {("a",)}  # The other one was not even sent.
        assert raised.value.retry_after == pytest.approx(100.0, abs=1.0)

    async def test_versions_that_were_seen_are_believed_while_the_quota_is_used_up(self, gcp, gcp_provider):
        names = [SecretName(f"s-{number}") for number in range(20)]
        for name in names:
            await create(gcp_provider, name)
        before = await gcp_provider.observe(names, mark=ME)
        gcp.fail("GetSecretVersion", "RESOURCE_EXHAUSTED", times=999)
        assert await gcp_provider.observe(names, mark=ME) == before

    async def test_versions_that_never_were_seen_are_not_made_up(self, gcp, gcp_provider):
        gcp.put_by_hand("a", b"v", **MINE)
        gcp.fail("GetSecretVersion", "RESOURCE_EXHAUSTED", times=999)
        with pytest.raises(RetryableError) as raised:
            await look(gcp_provider, "a")
        assert raised.value.reason is Reason.RATE_LIMITED

    async def test_a_drift_that_was_found_late_is_not_overwritten_blindly(self, gcp, gcp_provider):
        await create(gcp_provider, "a")
        await look(gcp_provider, "a")
        gcp.put_by_hand("a", b"by hand")
        gcp.fail("GetSecretVersion", "RESOURCE_EXHAUSTED", times=3)
        believed = await look(gcp_provider, "a")
        assert believed.version == "1"
        with pytest.raises(RetryableError) as raised:
            await update(gcp_provider, "a", b"w", current=believed)
        assert raised.value.reason is Reason.STORE_CHANGED
        assert gcp.values() == {"a": b"by hand"}


async def test_a_failed_listing_fails_all_who_wait_for_it(gcp, gcp_provider):
    gcp.fail("ListSecrets", "PERMISSION_DENIED", times=2)
    looks = [gcp_provider.observe([], mark=mark) for mark in (ME, NEIGHBOUR)]
    outcomes = await asyncio.gather(*looks, return_exceptions=True)
    assert all(isinstance(outcome, ControllerError) for outcome in outcomes)
