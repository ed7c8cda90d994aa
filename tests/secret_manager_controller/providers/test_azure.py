"""What the Azure adapter does beyond the contract: how many requests, which ones, and what it makes of the answers."""

import asyncio
import time
from collections import Counter

import pytest

from lease_sharding.fence import SoleMemberFence
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.model.observed import OwnerMark, RemoteSecret, RemoteState
from secret_manager_controller.model.secret import SecretName
from secret_manager_controller.providers import azure as azure_module
from secret_manager_controller.providers.azure import AzureDeclared, AzureEndpoints, AzureQuotas
from secret_manager_controller.providers.azure_marks import WRITE_TAG, tags_of
from secret_manager_controller.providers.azure_shared import SharedVaults
from secret_manager_controller.providers.budget import Budgets
from secret_manager_controller.providers.calls import REQUEST_TIMEOUT
from secret_manager_controller.testing.contract_subject import ME, NEIGHBOUR, REVISION, CountingFence, desired

FENCE = SoleMemberFence()
MY_TAGS = tags_of(ME, write=None, beside=None)
A = SecretName("a")


@pytest.fixture
def provider(azure_provider):
    return azure_provider


async def create(provider, name, value=b"v", *, revision=REVISION):
    return await provider.create(desired(name, value), mark=ME, revision=revision, fence=FENCE)


async def update(provider, name, value, *, current=None, revision=REVISION, fence=FENCE):
    current = current or await look(provider, name)
    return await provider.update(desired(name, value), current=current, mark=ME, revision=revision, fence=fence)


async def look(provider, name):
    return (await provider.observe([SecretName(name)], mark=ME)).secrets[SecretName(name)]


async def refused(work, reason=Reason.STORE_CHANGED):
    """Return the message of a refusal that has this reason."""
    with pytest.raises((PermanentError, RetryableError)) as raised:
        await work
    assert raised.value.reason is reason
    return raised.value.message


def counted(azure):
    """Return how many requests of each operation were made to the vault, and forget them."""
    logins = {"Challenge", "Discover", "GetToken"}
    count = Counter(call.operation for call in azure.calls() if call.operation not in logins)
    azure.clear_calls()
    return count


class TestRequests:
    """How many requests 100 secrets cost that are alone in their vault."""

    NAMES = tuple(SecretName(f"s-{number:03}") for number in range(100))

    @pytest.fixture(autouse=True)
    async def _created(self, azure, provider):
        await asyncio.gather(*(create(provider, name) for name in self.NAMES))
        azure.clear_calls()

    async def test_new_secrets_are_looked_at_and_set(self, azure, provider):
        azure.reset()
        await provider.observe(self.NAMES, mark=ME)
        await asyncio.gather(*(create(provider, name) for name in self.NAMES))
        assert counted(azure) == {"GetSecrets": 1, "GetDeletedSecrets": 1, "GetSecret": 100, "SetSecret": 100}

    async def test_nothing_new_costs_a_request_for_each_25_secrets(self, azure, provider):
        await provider.observe(self.NAMES, mark=ME)
        assert counted(azure) == {"GetSecrets": 4}

    async def test_one_change_costs_two_more(self, azure, provider):
        observed = await provider.observe(self.NAMES, mark=ME)
        await update(provider, "s-000", b"w", current=observed.secrets["s-000"])
        assert counted(azure) == {"GetSecrets": 4, "GetSecret": 1, "SetSecret": 1}

    async def test_drift_of_one_costs_a_look_for_its_mark_and_a_read(self, azure, provider):
        azure.put_by_hand("s-000", b"by hand")
        observed = await provider.observe(self.NAMES, mark=ME)
        await provider.read([observed.secrets["s-000"]])
        assert counted(azure) == {"GetSecrets": 4, "GetSecretVersions": 1, "GetSecret": 1}

    async def test_an_inherited_mark_is_looked_for_once(self, azure, provider):
        azure.put_by_hand("s-000", b"by hand")
        await provider.observe(self.NAMES, mark=ME)
        azure.clear_calls()
        await provider.observe(self.NAMES, mark=ME)
        assert counted(azure) == {"GetSecrets": 4}

    async def test_a_prune_costs_two_more(self, azure, provider):
        observed = await provider.observe(self.NAMES, mark=ME)
        await provider.delete(observed.secrets["s-000"], fence=FENCE)
        assert counted(azure) == {"GetSecrets": 4, "GetSecret": 1, "DeleteSecret": 1}

    async def test_objects_that_ask_at_a_time_share_a_listing(self, azure, provider):
        marks = [OwnerMark("cluster-a", f"team-a/app-{number}") for number in range(20)]
        await asyncio.gather(*(provider.observe([], mark=mark) for mark in marks))
        assert counted(azure) == {"GetSecrets": 4}

    async def test_objects_that_take_an_older_one_share_a_listing(self, azure, provider):
        asked = time.monotonic()
        for number in range(20):
            await provider.observe(self.NAMES, mark=OwnerMark("cluster-a", f"team-a/app-{number}"), since=asked)
        assert counted(azure) == {"GetSecrets": 4}

    async def test_objects_that_declare_different_things_share_a_listing(self, azure, make_azure):
        shared, asked = SharedVaults(), time.monotonic()
        for number in range(5):
            provider = make_azure(shared=shared, declared=AzureDeclared(tags={"service": str(number)}))
            observed = await provider.observe(self.NAMES, mark=ME, since=asked)
            assert all(remote.options_differ for remote in observed.secrets.values())
        assert counted(azure) == {"GetSecrets": 4}

    async def test_objects_that_log_in_differently_do_not(self, azure, make_azure):
        """What one login may see is not shown to another."""
        shared, asked = SharedVaults(), time.monotonic()
        for login in (azure.client_secret, azure.add_client("33333333-3333-3333-3333-333333333333", "s3cr3t")):
            await make_azure(shared=shared, login=login).observe(self.NAMES, mark=ME, since=asked)
        assert counted(azure) == {"GetSecrets": 8}


class TestObserve:
    async def test_a_name_has_the_case_that_was_asked_for(self, azure, provider):
        azure.put_by_hand("Db-Url", b"v", tags=MY_TAGS)
        observed = await provider.observe([SecretName("db-url")], mark=ME)
        assert set(observed.secrets) == {"db-url"}

    async def test_a_name_that_was_not_asked_for_has_the_case_that_it_was_made_with(self, azure, provider):
        azure.put_by_hand("Db-Url", b"v", tags=MY_TAGS)
        assert set((await provider.observe([], mark=ME)).secrets) == {"Db-Url"}

    async def test_two_names_of_one_secret_are_refused(self, azure, provider):
        """Otherwise the one would be kept and the other pruned: the secret with it."""
        names = [SecretName("Db-Url"), SecretName("db-url")]
        assert "one secret in Azure" in await refused(provider.observe(names, mark=ME), Reason.NAME_COLLISION)
        assert azure.calls() == []

    async def test_a_disabled_version_is_none(self, azure, provider):
        await create(provider, "a")
        azure.disable("a")
        assert await look(provider, "a") == RemoteSecret(A, None, ME)

    @pytest.mark.parametrize("beside", [0, 30], ids=["alone", "among many"])
    async def test_a_deleted_secret_is_found_by_its_name(self, azure, provider, beside):
        names = [SecretName(f"s-{number}") for number in range(beside)]
        version = await create(provider, "a")
        azure.schedule_deletion("a")
        observed = await provider.observe([A, *names], mark=ME)
        assert observed.secrets == {A: RemoteSecret(A, version, ME, RemoteState.DELETION_SCHEDULED)}

    async def test_deleted_ones_are_not_listed_at_any_length(self, azure, provider):
        """Looking at the ten names one by one is cheaper than the pages of 60 others."""
        for number in range(60):
            azure.put_by_hand(f"old-{number}", b"v", pause=0.0)
            azure.schedule_deletion(f"old-{number}")
        azure.clear_calls()
        await provider.observe([SecretName(f"s-{number}") for number in range(10)], mark=ME)
        assert counted(azure) == {"GetSecrets": 1, "GetDeletedSecrets": 1, "GetDeletedSecret": 10}

    async def test_short_pages_are_followed(self, azure, provider):
        for name in ("a", "b", "c"):
            await create(provider, name)
        azure.short_pages(1)
        observed = await provider.observe([], mark=ME)
        assert set(observed.secrets) == {"a", "b", "c"}

    @pytest.mark.parametrize("part", ["", "x" * 257], ids=["empty", "too long"])
    async def test_a_mark_that_no_tag_can_hold_is_refused(self, azure, provider, part):
        await refused(provider.observe([], mark=OwnerMark("c", part)), Reason.STORE_REFUSED)
        assert azure.calls() == []


class TestSince:
    """A look may be shared that was new enough when it was asked for; nothing that we wrote is older than it."""

    @pytest.fixture
    def asked(self):
        return time.monotonic()

    async def again(self, provider, asked):
        observed = await provider.observe([A], mark=ME, since=asked)
        return observed.secrets.get(A)

    async def test_a_listing_that_began_since_will_do(self, azure, provider, asked):
        azure.put_by_hand("a", b"v", tags=MY_TAGS)
        before = await look(provider, "a")
        azure.put_by_hand("a", b"by hand")
        azure.clear_calls()
        assert await self.again(provider, asked) == before
        assert counted(azure) == {}

    async def test_one_that_began_before_will_not(self, azure, provider):
        azure.put_by_hand("a", b"v", tags=MY_TAGS)
        before = await look(provider, "a")
        azure.put_by_hand("a", b"by hand", tags=MY_TAGS)
        assert (await self.again(provider, time.monotonic())).version != before.version

    async def test_one_in_the_future_is_one_of_now(self, azure, provider):
        assert await self.again(provider, time.monotonic() + 60) is None

    async def test_what_it_lacks_is_found_before_it_is_written(self, azure, provider, asked):
        await provider.observe([], mark=ME)
        azure.put_by_hand("a", b"theirs")
        assert await self.again(provider, asked) is None
        await refused(create(provider, "a"), Reason.CONFLICT)

    @pytest.mark.parametrize("method", ["update", "adopt", "delete"])
    async def test_what_we_wrote_is_listed_anew(self, azure, provider, asked, method):
        azure.put_by_hand("a", b"v", tags={} if method == "adopt" else MY_TAGS)
        seen = await look(provider, "a")
        match method:
            case "update":
                version = await update(provider, "a", b"w", current=seen)
                assert (await self.again(provider, asked)).version == version
            case "adopt":
                await provider.adopt(seen, mark=ME, fence=FENCE)
                assert (await self.again(provider, asked)).mark == ME
            case "delete":
                await provider.delete(seen, fence=FENCE)
                assert (await self.again(provider, asked)).state is RemoteState.DELETION_SCHEDULED


class TestShared:
    async def test_the_last_who_leaves_closes_it(self, azure, make_azure):
        shared = SharedVaults()
        first, second = make_azure(shared=shared), make_azure(shared=shared)
        await create(first, "a")
        await first.aclose()
        assert (await look(second, "a")).mark == ME
        await second.aclose()
        with pytest.raises(RuntimeError, match="is closed"):
            await look(second, "a")
        assert (await look(make_azure(shared=shared), "a")).mark == ME  # For the next one another is made.

    async def test_of_one_version_providers_that_share_make_one(self, azure, make_azure):
        shared = SharedVaults()
        providers = [make_azure(shared=shared) for _ in range(4)]
        await create(providers[0], "a")
        seen = await look(providers[0], "a")
        writes = [update(each, "a", f"w{n}".encode(), current=seen) for n, each in enumerate(providers)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert sum(isinstance(outcome, str) for outcome in outcomes) == 1
        assert azure.versions("a") == 2


class TestStaleListing:
    """Nothing is known of listings that lag behind; if one does, nothing is written that should not be."""

    async def test_what_it_lacks_is_found_before_it_is_created(self, azure, provider):
        azure.stale_listing(True)
        version = await create(provider, "a")
        assert (await provider.observe([A], mark=ME)).secrets == {}
        assert await create(provider, "a") == version
        assert azure.versions("a") == 1

    async def test_what_it_shows_is_confirmed_by_a_read(self, azure, provider):
        await create(provider, "a")
        azure.stale_listing(True)
        version = await update(provider, "a", b"w")
        stale = await look(provider, "a")
        values = await provider.read([stale])
        assert stale.version != version
        assert (values[A].version, values[A].value.expose()) == (version, b"w")

    async def test_what_it_shows_is_not_written_over(self, azure, provider):
        await create(provider, "a")
        azure.stale_listing(True)
        azure.put_by_hand("a", b"by hand", tags=MY_TAGS)
        await refused(update(provider, "a", b"w"))
        assert azure.values() == {"a": b"by hand"}


class TestVersions:
    async def test_it_tells_when_and_by_which_write_it_was_made(self, azure, provider):
        version = await create(provider, "a", revision="main@sha1:abcdef0123456789" + "0" * 24)
        created, _, write = version.partition("-")
        assert int(created) == azure.secrets()["a"].current.created
        assert write == azure.tags("a")[WRITE_TAG]
        assert write.startswith("abcdef012345-")

    async def test_a_change_of_anything_but_the_value_leaves_it(self, azure, provider):
        version = await create(provider, "a")
        azure.pass_time(60)
        azure.change("a", contentType="text/plain", attributes={"exp": 2_000_000_000})
        assert (await look(provider, "a")).version == version

    async def test_our_own_of_one_second_differ(self, azure, provider):
        azure.stop_clock()
        versions = [await create(provider, "a")]
        versions += [await update(provider, "a", value) for value in (b"w", b"v", b"w")]
        assert len(set(versions)) == 4

    async def test_one_by_hand_of_the_same_second_differs(self, azure, provider):
        azure.stop_clock()
        version = await create(provider, "a")
        azure.put_by_hand("a", b"by hand", pause=0.0)
        assert (await look(provider, "a")).version not in {version, None}

    async def test_one_by_hand_with_our_tags_differs(self, azure, provider):
        """The portal used to copy the tags of the version before."""
        version = await create(provider, "a")
        azure.pass_time(1)
        azure.put_by_hand("a", b"by hand", tags=azure.tags("a"))
        assert (await look(provider, "a")).version not in {version, None}

    async def test_one_by_hand_is_read_again_when_its_second_is_over(self, azure, provider, monkeypatch):
        """Two of one second could not be told apart: what is recorded must be the last one."""
        azure.stop_clock()
        azure.put_by_hand("a", b"first", tags=MY_TAGS, pause=0.0)
        seen = await look(provider, "a")
        azure.clear_calls()

        async def pause(seconds):
            azure.put_by_hand("a", b"second", tags=MY_TAGS, pause=seconds + 1)

        monkeypatch.setattr(azure_module.asyncio, "sleep", pause)
        (read,) = (await provider.read([seen])).values()
        assert (read.version, read.value.expose()) == (seen.version, b"second")
        assert counted(azure) == {"GetSecret": 2}

    async def test_one_that_is_written_all_the_time_is_left_to_the_next_pass(self, azure, provider, monkeypatch):
        azure.stop_clock()
        azure.put_by_hand("a", b"v", pause=0.0)

        async def pause(seconds):
            azure.put_by_hand("a", b"w", pause=0.0)

        monkeypatch.setattr(azure_module.asyncio, "sleep", pause)
        await refused(provider.read([RemoteSecret(A, None, ME)]))

    async def test_ours_is_read_at_once(self, azure, provider):
        await create(provider, "a")
        azure.clear_calls()
        await provider.read([RemoteSecret(A, None, ME)])
        assert counted(azure) == {"GetSecret": 1}


class TestInheritedMark:
    """Tags belong to a version, and a version by hand has none."""

    async def test_a_value_by_hand_leaves_the_secret_ours(self, azure, provider):
        await create(provider, "a")
        for value in (b"by hand", b"again"):
            azure.put_by_hand("a", value)
        seen = await look(provider, "a")
        assert seen.mark == ME
        await update(provider, "a", b"v", current=seen)
        assert azure.values() == {"a": b"v"}

    async def test_a_mark_that_was_removed_is_none(self, azure, provider):
        await create(provider, "a")
        seen = await look(provider, "a")
        await update(provider, "a", b"w")
        azure.pass_time(1)
        azure.change("a", tags={})
        assert (await look(provider, "a")).mark is None
        await refused(update(provider, "a", b"x", current=seen))
        await refused(provider.delete(seen, fence=FENCE))
        assert azure.values() == {"a": b"w"}

    async def test_a_mark_of_someone_else_counts_at_once(self, azure, provider):
        await create(provider, "a")
        azure.put_by_hand("a", b"theirs", tags=tags_of(NEIGHBOUR, write=None, beside=None))
        assert (await look(provider, "a")).mark == NEIGHBOUR

    async def test_nobody_s_secret_stays_nobody_s(self, azure, provider):
        for value in (b"v", b"w"):
            azure.put_by_hand("a", value)
        assert (await look(provider, "a")).mark is None

    async def test_what_is_ours_by_inheritance_can_be_pruned(self, azure, provider):
        await create(provider, "a")
        azure.put_by_hand("a", b"by hand")
        await provider.delete(await look(provider, "a"), fence=FENCE)
        assert azure.values() == {}

    async def test_adopting_what_was_another_s_by_inheritance_marks_it(self, azure, provider):
        azure.put_by_hand("a", b"v", tags=tags_of(NEIGHBOUR, write=None, beside=None))
        azure.put_by_hand("a", b"w")
        await provider.adopt(await look(provider, "a"), mark=ME, fence=FENCE)
        assert (await look(provider, "a")).mark == ME


class TestRead:
    async def test_a_disabled_value_is_left_out(self, azure, provider):
        await create(provider, "a")
        azure.disable("a")
        assert await provider.read([RemoteSecret(A, None, ME)]) == {}

    async def test_a_denied_value_is_told(self, azure, provider):
        await create(provider, "a")
        azure.fail("GetSecret", "ForbiddenByRbac", 403)
        work = provider.read([RemoteSecret(A, None, ME)])
        assert "GetSecret for 'a'" in await refused(work, Reason.STORE_ACCESS_DENIED)


class TestCreate:
    async def test_a_deleted_name_is_left_to_the_next_look(self, azure, provider):
        azure.put_by_hand("a", b"v")
        azure.schedule_deletion("a")
        await refused(create(provider, "a"))

    @pytest.mark.parametrize("code", ["ObjectIsBeingDeleted", "ObjectIsBeingRecovered", "Conflict"])
    async def test_a_name_in_transition_is_left_to_the_next_look(self, azure, provider, code):
        azure.fail("SetSecret", code, 409)
        await refused(create(provider, "a"))

    async def test_an_earlier_creation_with_this_value_counts(self, provider):
        version = await create(provider, "a", revision="main@sha1:" + "0" * 40)
        assert await create(provider, "a") == version

    async def test_an_earlier_creation_with_another_value_is_left_to_the_next_look(self, azure, provider):
        await create(provider, "a", b"old")
        await refused(create(provider, "a", b"new"))
        assert azure.values() == {"a": b"old"}

    async def test_a_disabled_secret_of_ours_is_left_to_the_next_look(self, azure, provider):
        await create(provider, "a")
        azure.disable("a")
        await refused(create(provider, "a"))

    async def test_a_disabled_secret_of_nobody_is_a_conflict(self, azure, provider):
        azure.put_by_hand("a", b"v")
        azure.disable("a")
        await refused(create(provider, "a"), Reason.CONFLICT)

    async def test_a_secret_in_another_case_is_found(self, azure, provider):
        azure.put_by_hand("A", b"theirs")
        await refused(create(provider, "a"), Reason.CONFLICT)
        assert azure.values() == {"A": b"theirs"}

    @pytest.mark.parametrize("value", [b"\xff", b"a\0b"], ids=["not UTF-8", "a zero byte"])
    async def test_a_binary_value_is_refused(self, azure, provider, value):
        assert "base64" in await refused(create(provider, "a", value), Reason.STORE_REFUSED)
        assert azure.calls() == []

    async def test_a_value_that_is_too_large_is_refused_without_being_told(self, azure, provider):
        message = await refused(create(provider, "a", b"x" * (25 * 1024 + 1)), Reason.STORE_REFUSED)
        assert "x" * 10 not in message
        assert azure.values() == {}

    async def test_a_secret_that_appears_between_two_attempts_stays(self, azure, make_azure):
        azure.fail("SetSecret", "InternalServerError", 500)

        def meanwhile(_, operation, code, __):
            if (operation, code) == ("SetSecret", "InternalServerError"):
                azure.put_by_hand("a", b"theirs")

        await refused(create(make_azure(on_call=meanwhile), "a"), Reason.CONFLICT)
        assert azure.values() == {"a": b"theirs"}


class TestUpdate:
    async def test_what_stands_beside_the_value_is_kept(self, azure, provider):
        await create(provider, "a")
        dates = {"nbf": 1_500_000_000, "exp": 2_000_000_000}
        azure.change("a", contentType="text/plain", attributes=dates, tags={**azure.tags("a"), "team": "blue"})
        await update(provider, "a", b"w")
        current = azure.secrets()["a"].current
        assert (current.content_type, current.not_before, current.expires) == ("text/plain", *dates.values())
        assert current.tags["team"] == "blue"

    async def test_every_version_carries_the_mark_and_its_own_write(self, azure, provider):
        await create(provider, "a")
        await update(provider, "a", b"w")
        versions = azure.secrets()["a"].versions
        assert all(MY_TAGS.items() <= version.tags.items() for version in versions)
        assert len({version.tags[WRITE_TAG] for version in versions}) == 2

    async def test_too_many_tags_are_told(self, azure, provider):
        azure.put_by_hand("a", b"v", tags=MY_TAGS | {f"t{number}": "x" for number in range(12)})
        assert "too many tags" in await refused(update(provider, "a", b"w"), Reason.STORE_REFUSED)
        assert azure.values() == {"a": b"v"}

    async def test_a_disabled_version_gets_a_new_one_with_what_it_had(self, azure, provider):
        await create(provider, "a")
        azure.change("a", contentType="text/plain")
        azure.disable("a")
        await update(provider, "a", b"w")
        current = azure.secrets()["a"].current
        assert (current.value, current.enabled, current.content_type) == (b"w", True, "text/plain")

    async def test_of_another_s_secret_none_is_made(self, azure, provider):
        azure.put_by_hand("a", b"v", tags=MY_TAGS)
        seen = await look(provider, "a")
        azure.put_by_hand("a", b"theirs", tags=tags_of(NEIGHBOUR, write=None, beside=None))
        await refused(update(provider, "a", b"w", current=seen))
        assert azure.values() == {"a": b"theirs"}

    async def test_what_comes_between_look_and_write_stays_among_the_versions(self, azure, provider):
        """The residual window: SetSecret has no precondition."""

        class Meanwhile:
            def check(self, margin):
                azure.put_by_hand("a", b"meanwhile", tags=MY_TAGS)

        await create(provider, "a")
        await update(provider, "a", b"late", fence=Meanwhile())
        assert [version.value for version in azure.secrets()["a"].versions] == [b"v", b"meanwhile", b"late"]

    async def test_the_fence_is_asked_for_as_long_as_a_request_takes(self, azure, provider):
        azure.put_by_hand("a", b"v", tags=MY_TAGS)
        azure.schedule_deletion("a")
        fence = CountingFence(allowed=2)
        await update(provider, "a", b"w", fence=fence)
        assert fence.margins == [REQUEST_TIMEOUT, REQUEST_TIMEOUT]


class TestOptions:
    """Beside the tags, which the contract is about: content type and expiry."""

    EXPIRES = 2_000_000_000
    DECLARED = AzureDeclared(content_type="text/plain", expires=EXPIRES, tags={"team": "blue"})

    @pytest.fixture
    def declaring(self, make_azure):
        return make_azure(declared=self.DECLARED)

    async def test_a_new_secret_has_what_is_declared(self, azure, declaring):
        await create(declaring, "a")
        current = azure.secrets()["a"].current
        assert (current.content_type, current.expires, current.tags["team"]) == ("text/plain", self.EXPIRES, "blue")
        assert not (await look(declaring, "a")).options_differ

    async def test_a_new_version_has_what_is_declared_before_what_was_there(self, azure, declaring):
        await create(declaring, "a")
        azure.change("a", contentType="text/html", attributes={"exp": 1_900_000_000, "nbf": 1_500_000_000})
        await update(declaring, "a", b"w")
        current = azure.secrets()["a"].current
        assert (current.content_type, current.expires) == ("text/plain", self.EXPIRES)
        assert current.not_before == 1_500_000_000

    @pytest.mark.parametrize(
        "change",
        [
            {"contentType": "text/html"},
            {"contentType": ""},
            {"attributes": {"exp": 1_900_000_000}},
            {"tags": MY_TAGS},
        ],
        ids=["another content type", "none", "another expiry", "no tag"],
    )
    async def test_what_was_changed_by_hand_is_set_again_on_the_same_version(self, azure, declaring, change):
        version = await create(declaring, "a")
        before = azure.secrets()["a"].current
        azure.pass_time(5)
        azure.change("a", **change)
        seen = await look(declaring, "a")
        assert (seen.version if "tags" not in change else version, seen.options_differ) == (version, True)
        await declaring.adopt(seen, mark=ME, fence=FENCE)
        after = azure.secrets()["a"].current
        assert (after.id, after.content_type, after.expires) == (before.id, "text/plain", self.EXPIRES)
        assert after.tags["team"] == "blue"
        assert not (await look(declaring, "a")).options_differ

    async def test_what_is_as_declared_is_not_written(self, azure, declaring):
        await create(declaring, "a")
        azure.clear_calls()
        await declaring.adopt(await look(declaring, "a"), mark=ME, fence=FENCE)
        assert azure.writes() == []

    async def test_what_is_not_declared_is_not_looked_at(self, azure, provider):
        await create(provider, "a")
        azure.change("a", contentType="text/html", attributes={"exp": 1_900_000_000})
        assert not (await look(provider, "a")).options_differ

    async def test_no_content_type_can_be_declared(self, azure, make_azure):
        azure.put_by_hand("a", b"v", tags=MY_TAGS)
        azure.change("a", contentType="text/html")
        none = make_azure(declared=AzureDeclared(content_type=""))
        await none.adopt(await look(none, "a"), mark=ME, fence=FENCE)
        assert not (await look(none, "a")).options_differ

    async def test_too_many_tags_are_told(self, azure, make_azure):
        azure.put_by_hand("a", b"v", tags=MY_TAGS | {f"t{number}": "x" for number in range(8)})
        full = make_azure(declared=AzureDeclared(tags={f"d{number}": "x" for number in range(10)}))
        seen = await look(full, "a")
        told = await refused(full.adopt(seen, mark=ME, fence=FENCE), Reason.STORE_REFUSED)
        assert "spec.provider.azure.tags" in told
        assert azure.writes() == []


class TestRecovery:
    @pytest.fixture
    async def gone(self, azure, provider):
        await create(provider, "a")
        azure.schedule_deletion("a")
        return await look(provider, "a")

    async def test_all_versions_come_back(self, azure, provider, gone):
        await update(provider, "a", b"w", current=gone)
        assert [version.value for version in azure.secrets()["a"].versions] == [b"v", b"w"]

    async def test_it_is_waited_for(self, azure, provider, gone, monkeypatch):
        monkeypatch.setattr(azure_module, "RECOVERY_LOOKS", (0.0, 0.1, 0.2, 0.4))
        azure.transition(0.2)
        await update(provider, "a", b"w", current=gone)
        assert azure.values() == {"a": b"w"}

    async def test_not_for_ever(self, azure, provider, gone, monkeypatch):
        monkeypatch.setattr(azure_module, "RECOVERY_LOOKS", (0.0, 0.01))
        azure.transition(60)
        assert "is being recovered" in await refused(update(provider, "a", b"w", current=gone))

    async def test_a_lost_answer_is_found_done(self, azure, provider, gone):
        azure.fail("RecoverDeletedSecret", "InternalServerError", 500, commit=True)
        await update(provider, "a", b"w", current=gone)
        assert azure.values() == {"a": b"w"}

    async def test_while_it_is_being_deleted_the_next_pass_goes_on(self, azure, provider, gone, monkeypatch):
        monkeypatch.setattr(azure_module, "RECOVERY_LOOKS", (0.0,))
        azure.fail("RecoverDeletedSecret", "ObjectIsBeingDeleted", 409)
        await refused(update(provider, "a", b"w", current=gone))

    async def test_a_value_written_before_the_deletion_is_not_replaced_unseen(self, azure, provider, gone):
        azure.recover("a")
        azure.put_by_hand("a", b"by hand", tags=MY_TAGS)
        azure.schedule_deletion("a")
        await refused(update(provider, "a", b"w", current=gone))
        assert azure.values() == {"a": b"by hand"}

    async def test_what_is_purged_meanwhile_is_gone(self, azure, provider, gone, monkeypatch):
        monkeypatch.setattr(azure_module, "RECOVERY_LOOKS", (0.0,))
        azure.destroy("a")
        await refused(update(provider, "a", b"w", current=gone))
        assert azure.values() == {}


class TestAdopt:
    async def test_what_else_stands_there_is_kept(self, azure, provider):
        azure.put_by_hand("a", b"v", tags={"team": "blue"})
        await provider.adopt(await look(provider, "a"), mark=ME, fence=FENCE)
        assert azure.tags("a") == {"team": "blue", **MY_TAGS}
        assert azure.versions("a") == 1

    async def test_what_is_marked_already_is_not_written(self, azure, provider):
        azure.put_by_hand("a", b"v", tags=MY_TAGS)
        await provider.adopt(await look(provider, "a"), mark=ME, fence=FENCE)
        assert azure.writes() == []

    async def test_a_disabled_version_can_be_adopted(self, azure, provider):
        azure.put_by_hand("a", b"v")
        azure.disable("a")
        await provider.adopt(await look(provider, "a"), mark=ME, fence=FENCE)
        assert (await look(provider, "a")).mark == ME

    async def test_another_version_is_not_adopted_unseen(self, azure, provider):
        azure.put_by_hand("a", b"v")
        seen = await look(provider, "a")
        azure.put_by_hand("a", b"w")
        await refused(provider.adopt(seen, mark=ME, fence=FENCE))
        assert azure.writes() == []

    async def test_what_someone_else_took_meanwhile_stays_his(self, azure, provider):
        azure.put_by_hand("a", b"v")
        seen = await look(provider, "a")
        azure.change("a", tags=tags_of(NEIGHBOUR, write=None, beside=None))
        await refused(provider.adopt(seen, mark=ME, fence=FENCE))

    async def test_what_is_deleted_meanwhile_is_told(self, azure, provider):
        azure.put_by_hand("a", b"v")
        seen = await look(provider, "a")
        azure.fail("UpdateSecret", "SecretNotFound", 404)
        await refused(provider.adopt(seen, mark=ME, fence=FENCE))


class TestDelete:
    async def test_it_can_be_recovered(self, azure, provider):
        await create(provider, "a")
        await provider.delete(await look(provider, "a"), fence=FENCE)
        azure.recover("a")
        assert azure.values() == {"a": b"v"}

    async def test_it_is_not_waited_for(self, azure, provider):
        await create(provider, "a")
        azure.transition(60)
        await provider.delete(await look(provider, "a"), fence=FENCE)
        assert azure.values() == {}

    async def test_what_somebody_else_took_since_the_listing_stays(self, azure, provider):
        await create(provider, "a")
        seen = await look(provider, "a")
        azure.change("a", tags=tags_of(NEIGHBOUR, write=None, beside=None))
        await refused(provider.delete(seen, fence=FENCE))
        assert azure.values() == {"a": b"v"}

    async def test_one_under_way_counts(self, azure, provider):
        await create(provider, "a")
        azure.fail("DeleteSecret", "ObjectIsBeingDeleted", 409)
        await provider.delete(await look(provider, "a"), fence=FENCE)


REFUSALS = {
    "ForbiddenByRbac": (403, Reason.STORE_ACCESS_DENIED, "secrets/setSecret/action"),
    "ForbiddenByPolicy": (403, Reason.STORE_ACCESS_DENIED, "or Set in the vault's access policies"),
    "ForbiddenByFirewall": (403, Reason.STORE_ACCESS_DENIED, "lets no request in from here"),
    "ForbiddenByConnection": (403, Reason.STORE_ACCESS_DENIED, "private endpoint"),
    "BadParameter": (400, Reason.STORE_REFUSED, "refuses SetSecret for 'a'"),
    "<html>": (400, Reason.STORE_REFUSED, "Unknown"),
}
DENIED = [
    ("GetSecrets", "readMetadata/action", "List"),
    ("GetSecretVersions", "readMetadata/action", "List"),
    ("GetDeletedSecrets", "readMetadata/action", "List"),
    ("GetDeletedSecret", "readMetadata/action", "Get"),
    ("GetSecret", "getSecret/action", "Get"),
    ("SetSecret", "setSecret/action", "Set"),
    ("UpdateSecret", "update/action", "Set"),
    ("DeleteSecret", "delete", "Delete"),
    ("RecoverDeletedSecret", "recover/action", "Recover"),
]
PASSING = {
    "Throttled": (429, Reason.RATE_LIMITED),
    "InternalServerError": (500, Reason.STORE_UNAVAILABLE),
    "ServiceUnavailable": (503, Reason.STORE_UNAVAILABLE),
    "RequestTimeout": (408, Reason.STORE_UNAVAILABLE),
    "a broken connection": (0, Reason.STORE_UNAVAILABLE),
}


class TestRefusals:
    @pytest.mark.parametrize(("code", "expected"), REFUSALS.items(), ids=REFUSALS.keys())
    async def test_a_refusal_says_what_mends_it(self, azure, provider, code, expected):
        status, reason, text = expected
        await create(provider, "a")
        current = await look(provider, "a")
        azure.fail("SetSecret", code, status)
        message = await refused(update(provider, "a", b"w", current=current), reason)
        assert text in message
        assert "A fault that the test asked for" not in message
        assert len(azure.writes()) == 2

    @pytest.mark.parametrize(("code", "status", "reason"), [(c, *e) for c, e in PASSING.items()], ids=PASSING.keys())
    async def test_what_passes_is_tried_three_times(self, azure, provider, code, status, reason):
        azure.fail("SetSecret", code, status, times=9)
        await refused(create(provider, "a"), reason)
        assert len(azure.writes()) == 3

    @pytest.mark.parametrize(("code", "status", "reason"), [(c, *e) for c, e in PASSING.items()], ids=PASSING.keys())
    async def test_what_passed_leaves_no_trace(self, azure, provider, code, status, reason):
        azure.fail("SetSecret", code, status, times=2)
        await create(provider, "a")
        assert azure.values() == {"a": b"v"}

    @pytest.mark.parametrize(("operation", "action", "permission"), DENIED, ids=[each[0] for each in DENIED])
    async def test_one_permission_that_is_missing_is_named_and_nothing_is_lost(
        self, azure, provider, operation, action, permission
    ):
        """Whichever call it is, no other change comes of it."""
        azure.put_by_hand("a", b"v", tags={} if operation == "UpdateSecret" else MY_TAGS)
        if operation == "GetSecretVersions":
            azure.put_by_hand("a", b"v")
        if operation == "RecoverDeletedSecret":
            azure.schedule_deletion("a")
        azure.fail(operation, "ForbiddenByRbac", 403, times=9)

        async def all_of_it():
            seen = await look(provider, "a")
            match operation:
                case "GetDeletedSecret" | "GetDeletedSecrets":
                    count = 1 if operation == "GetDeletedSecret" else 20
                    await provider.observe([SecretName(f"s-{number}") for number in range(count)], mark=ME)
                case "UpdateSecret":
                    await provider.adopt(seen, mark=ME, fence=FENCE)
                case "DeleteSecret":
                    await provider.delete(seen, fence=FENCE)
                case _:
                    await update(provider, "a", b"w", current=seen)

        message = await refused(all_of_it(), Reason.STORE_ACCESS_DENIED)
        assert f"Microsoft.KeyVault/vaults/secrets/{action}" in message
        assert f"or {permission} in the vault's access policies" in message
        assert azure.client_secret.client_id in message
        assert azure.secrets()["a"].current.value == b"v"
        assert [call for call in azure.writes() if call.committed] == []

    async def test_a_login_that_was_revoked_is_told_when_its_token_ends(self, azure, make_azure):
        login = azure.add_client("33333333-3333-3333-3333-333333333333", "s3cr3t")
        provider = make_azure(login=login)
        await create(provider, "a")
        azure.remove_client(login.client_id)
        azure.expire_tokens()
        assert "no such application" in await refused(provider.observe([A], mark=ME), Reason.STORE_ACCESS_DENIED)
        assert azure.values() == {"a": b"v"}

    async def test_a_quota_that_somebody_else_spent_is_told_with_the_time_to_wait(self, azure, make_azure):
        azure.stop_clock()
        azure.quotas(sets=1, window=60.0)
        await create(make_azure(), "other")
        with pytest.raises(RetryableError) as raised:
            await create(make_azure(budgets=Budgets()), "a")
        assert (raised.value.reason, raised.value.retry_after) == (Reason.RATE_LIMITED, 60.0)
        azure.pass_time(60)
        await create(make_azure(budgets=Budgets()), "a")

    async def test_our_own_budget_keeps_within_the_quota(self, azure, make_azure):
        quotas = AzureQuotas(all=1_000_000, sets=20)
        azure.quotas(sets=20)
        provider = make_azure(quotas=quotas, budgets=Budgets())
        await asyncio.gather(*(create(provider, f"s-{number}") for number in range(6)))
        assert {call.code for call in azure.writes()} == {"OK"}

    async def test_a_long_retry_after_is_left_to_the_caller(self, azure, provider):
        azure.fail("SetSecret", "Throttled", 429, times=9, retry_after=60)
        with pytest.raises(RetryableError) as raised:
            await create(provider, "a")
        assert raised.value.retry_after == 60.0
        assert len(azure.writes()) == 1

    async def test_a_short_retry_after_is_waited_for(self, azure, provider):
        azure.fail("SetSecret", "Throttled", 429, retry_after=0.05)
        await create(provider, "a")
        first, second = azure.writes()
        assert second.at - first.at >= 0.05

    async def test_a_refused_look_ends_the_others(self, azure, provider):
        azure.fail("GetDeletedSecret", "ForbiddenByPolicy", 403)
        names = [SecretName(f"s-{number}") for number in range(9)]
        assert "or Get in" in await refused(provider.observe(names, mark=ME), Reason.STORE_ACCESS_DENIED)

    async def test_a_failed_listing_is_told_to_all_who_share_it(self, azure, provider):
        azure.fail("GetSecrets", "ForbiddenByRbac", 403)
        looks = [provider.observe([], mark=ME) for _ in range(3)]
        outcomes = await asyncio.gather(*looks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [PermanentError] * 3
        assert (await provider.observe([], mark=ME)).secrets == {}

    async def test_a_vault_that_a_proxy_does_not_find_is_unavailable(self, make_azure):
        message = await refused(make_azure(vault="other-vault").observe([], mark=ME), Reason.STORE_UNAVAILABLE)
        assert "check the vault's name" in message

    async def test_another_vault_is_another_store(self, azure, provider, make_azure):
        azure.add_vault("other-vault")
        await create(provider, "a")
        assert (await make_azure(vault="other-vault").observe([A], mark=ME)).secrets == {}

    async def test_an_address_that_nobody_listens_at_is_unavailable(self, make_azure):
        provider = make_azure(endpoints=AzureEndpoints(authority="https://127.0.0.1:9"))
        assert "did not answer" in await refused(provider.observe([], mark=ME), Reason.STORE_UNAVAILABLE)
