"""What the AWS adapter does beyond the contract: how many requests, which ones, and what it makes of AWS's answers."""

import asyncio
import datetime
from collections import Counter
from dataclasses import replace

import pytest

from lease_sharding.fence import SoleMemberFence
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.model.observed import OwnerMark, RemoteSecret, RemoteState
from secret_manager_controller.model.secret import SecretName
from secret_manager_controller.providers.aws import AwsDeclared
from secret_manager_controller.providers.aws_marks import OWNER_TAG, tags_of
from secret_manager_controller.providers.calls import REQUEST_TIMEOUT
from secret_manager_controller.testing.contract_subject import ME, NEIGHBOUR, REVISION, CountingFence, desired

FENCE = SoleMemberFence()
MY_TAGS = {tag["Key"]: tag["Value"] for tag in tags_of(ME)}
A = SecretName("a")


async def create(provider, name, value=b"v", *, revision=REVISION):
    return await provider.create(desired(name, value), mark=ME, revision=revision, fence=FENCE)


async def update(provider, name, value, *, current=None, revision=REVISION, fence=FENCE):
    current = current or await look(provider, name)
    return await provider.update(desired(name, value), current=current, mark=ME, revision=revision, fence=fence)


async def look(provider, name):
    return (await provider.observe([SecretName(name)], mark=ME)).secrets[SecretName(name)]


def counted(aws):
    """Return how many requests of each operation were made, and forget them."""
    count = Counter(call.operation for call in aws.calls())
    aws.clear_calls()
    return count


class TestRequests:
    """How many requests 100 secrets cost."""

    NAMES = tuple(SecretName(f"s-{number:03}") for number in range(100))

    @pytest.fixture(autouse=True)
    async def _created(self, aws, provider):
        await asyncio.gather(*(create(provider, name) for name in self.NAMES))
        aws.clear_calls()

    async def test_new_secrets_are_looked_for_and_created(self, aws, make_provider):
        aws.reset()
        provider = make_provider()
        await provider.observe(self.NAMES, mark=ME)
        await asyncio.gather(*(create(provider, name) for name in self.NAMES))
        assert counted(aws) == {"ListSecrets": 2, "CreateSecret": 100}

    async def test_nothing_new_costs_one_request(self, aws, provider):
        await provider.observe(self.NAMES, mark=ME)
        assert counted(aws) == {"ListSecrets": 1}

    async def test_one_change_costs_two_more(self, aws, provider):
        observed = await provider.observe(self.NAMES, mark=ME)
        await update(provider, "s-000", b"w", current=observed.secrets["s-000"])
        assert counted(aws) == {"ListSecrets": 1, "PutSecretValue": 1, "UpdateSecretVersionStage": 1}

    async def test_drift_of_one_costs_one_read_more(self, aws, provider):
        aws.put_by_hand("s-000", b"by hand")
        observed = await provider.observe(self.NAMES, mark=ME)
        await provider.read([observed.secrets["s-000"]])
        assert counted(aws) == {"ListSecrets": 1, "GetSecretValue": 1}

    async def test_a_prune_costs_two_more(self, aws, provider):
        observed = await provider.observe(self.NAMES, mark=ME)
        await provider.delete(observed.secrets["s-000"], fence=FENCE)
        assert counted(aws) == {"ListSecrets": 1, "DescribeSecret": 1, "DeleteSecret": 1}

    async def test_values_are_read_twenty_a_request(self, aws, provider):
        observed = await provider.observe(self.NAMES, mark=ME)
        assert len(await provider.read(observed.secrets.values())) == 100
        assert counted(aws) == {"ListSecrets": 1, "BatchGetSecretValue": 5}


class TestSweep:
    """Objects on one account that look again at a time, or soon after each other, share listings."""

    OWNERS = tuple(OwnerMark(ME.cluster, f"team/app-{number}") for number in range(100))

    @pytest.fixture(autouse=True)
    def _owned(self, aws):
        for mark in self.OWNERS:
            tags = {tag["Key"]: tag["Value"] for tag in tags_of(mark)}
            aws.put_by_hand(mark.owner.replace("/", "-"), b"v", tags=tags)
        aws.clear_calls()

    async def look(self, provider, mark, *, since=0.0):
        return set((await provider.observe([], mark=mark, since=since)).secrets)

    async def test_a_hundred_at_a_time_cost_one_listing(self, aws, provider):
        found = await asyncio.gather(*(self.look(provider, mark) for mark in self.OWNERS))
        assert found == [{mark.owner.replace("/", "-")} for mark in self.OWNERS]
        assert counted(aws) == {"ListSecrets": 1}

    async def test_a_hundred_one_after_the_other_cost_two(self, aws, provider):
        for mark in self.OWNERS:
            assert await self.look(provider, mark) == {mark.owner.replace("/", "-")}
        assert counted(aws) == {"ListSecrets": 2}

    async def test_who_wrote_or_was_asked_to_look_is_told_of_the_present(self, aws, provider):
        await asyncio.gather(*(self.look(provider, mark) for mark in self.OWNERS[:2]))
        await provider.create(desired("new", b"v"), mark=self.OWNERS[0], revision=REVISION, fence=FENCE)
        assert await self.look(provider, self.OWNERS[0]) == {"team-app-0", "new"}
        aws.destroy("team-app-1")
        assert await self.look(provider, self.OWNERS[1], since=None) == set()


class TestObserve:
    async def test_what_a_stale_listing_lacks_is_looked_at(self, aws, provider):
        aws.stale_listing(True)
        version = await create(provider, "a")
        assert await look(provider, "a") == RemoteSecret(A, version, ME)

    async def test_what_a_stale_listing_shows_is_confirmed_by_a_read(self, aws, provider):
        await create(provider, "a")
        aws.stale_listing(True)
        version = await update(provider, "a", b"w")
        stale = await look(provider, "a")
        values = await provider.read([stale])
        assert stale.version != version
        assert (values[A].version, values[A].value.expose()) == (version, b"w")

    async def test_many_names_that_a_stale_listing_lacks_are_found_when_they_are_created(
        self, aws, make_provider, provider
    ):
        names = [SecretName(f"s-{number:02}") for number in range(20)]
        aws.stale_listing(True)
        versions = [await create(provider, name) for name in names]
        assert len((await provider.observe(names, mark=ME)).secrets) == 20
        other = make_provider()  # As after a restart: it knows nothing of what was written.
        assert (await other.observe(names, mark=ME)).secrets == {}
        assert [await create(other, name) for name in names] == versions
        with pytest.raises(RetryableError):
            await create(other, names[0], b"another value")
        assert len((await other.observe(names, mark=ME)).secrets) == 20

    async def test_of_many_unlisted_names_what_others_own_is_seen_by_their_names(self, aws, provider):
        names = [SecretName(f"s-{number:03}") for number in range(100)]
        aws.put_by_hand("s-007", b"theirs")
        aws.put_by_hand("s-000-not-asked-for", b"theirs")
        assert set((await provider.observe(names, mark=ME)).secrets) == {"s-007"}
        assert counted(aws) == {"ListSecrets": 2}

    async def test_where_too_many_begin_alike_the_rest_is_looked_at_one_by_one(self, aws, provider):
        names = [SecretName(f"s-{number:02}") for number in range(11)]
        aws.put_by_hand("s-00", b"theirs")
        aws.put_by_hand("s-07", b"theirs")
        aws.short_pages(1)
        assert set((await provider.observe(names, mark=ME)).secrets) == {"s-00", "s-07"}
        assert counted(aws) == {"ListSecrets": 2, "DescribeSecret": 10}

    async def test_short_and_empty_pages_are_followed(self, aws, provider):
        for name in ("a", "b", "c"):
            await create(provider, name)
        aws.short_pages(1)
        observed = await provider.observe([], mark=ME)
        assert set(observed.secrets) == {"a", "b", "c"}

    async def test_what_is_scheduled_for_deletion_is_in_the_listing(self, aws, provider):
        version = await create(provider, "a")
        aws.schedule_deletion("a")
        aws.clear_calls()
        assert await look(provider, "a") == RemoteSecret(A, version, ME, RemoteState.DELETION_SCHEDULED)
        assert counted(aws) == {"ListSecrets": 1}

    async def test_a_tag_key_of_ours_with_the_value_elsewhere_is_no_mark(self, aws, provider):
        aws.put_by_hand("a", b"v", tags={OWNER_TAG: "someone", "note": ME.owner})
        observed = await provider.observe([], mark=ME)
        assert observed.secrets == {}

    @pytest.mark.parametrize(
        "mark",
        [
            pytest.param(OwnerMark("c", "n/" + "x" * 255), id="too long"),
            pytest.param(OwnerMark("c,d", "n/x"), id="a character that tags lack"),
            pytest.param(OwnerMark("c", "!n/x"), id="a negation"),
            pytest.param(OwnerMark("", "n/x"), id="empty"),
        ],
    )
    async def test_a_mark_that_no_tag_can_hold_is_refused(self, aws, provider, mark):
        with pytest.raises(PermanentError, match="cannot be an AWS tag") as raised:
            await provider.observe([], mark=mark)
        assert raised.value.reason is Reason.STORE_REFUSED
        assert aws.calls() == []


class TestRead:
    async def test_a_batch_that_comes_in_pages_is_followed(self, aws, provider):
        for name in ("a", "b", "c"):
            await create(provider, name)
        aws.short_pages(1)
        remotes = [RemoteSecret(SecretName(name), None, ME) for name in ("a", "b", "c")]
        assert set(await provider.read(remotes)) == {"a", "b", "c"}

    @pytest.mark.parametrize("code", ["DecryptionFailure", "AccessDeniedException"])
    async def test_one_value_that_is_refused_is_told(self, aws, provider, code):
        for name in ("a", "b"):
            await create(provider, name)
        aws.unreadable("b", code)
        with pytest.raises(PermanentError, match="BatchGetSecretValue for 'b'"):
            await provider.read([RemoteSecret(SecretName(name), None, ME) for name in ("a", "b")])

    async def test_text_is_stored_as_text_and_all_else_as_binary(self, client, provider):
        kinds = {}
        for name, value in {"text": "grün\n".encode(), "zero": b"a\0", "bytes": b"\xff"}.items():
            await create(provider, name, value)
            kinds[name] = {"SecretString", "SecretBinary"} & set(client.get_secret_value(SecretId=name))
        assert kinds == {"text": {"SecretString"}, "zero": {"SecretBinary"}, "bytes": {"SecretBinary"}}


class TestCreate:
    async def test_a_name_that_is_scheduled_for_deletion_is_left_to_the_next_look(self, aws, provider):
        aws.put_by_hand("a", b"v")
        aws.schedule_deletion("a")
        with pytest.raises(RetryableError) as raised:
            await create(provider, "a")
        assert raised.value.reason is Reason.STORE_CHANGED

    async def test_an_earlier_creation_with_this_value_counts(self, provider):
        version = await create(provider, "a", revision="main@sha1:" + "0" * 40)
        assert await create(provider, "a") == version

    async def test_an_earlier_creation_with_another_value_is_left_to_the_next_look(self, aws, provider):
        await create(provider, "a", b"old")
        with pytest.raises(RetryableError) as raised:
            await create(provider, "a", b"new")
        assert raised.value.reason is Reason.STORE_CHANGED
        assert aws.values() == {"a": b"old"}

    async def test_a_value_that_is_too_large_is_refused_without_being_told(self, provider):
        with pytest.raises(PermanentError) as raised:
            await create(provider, "a", b"x" * 65_537)
        assert raised.value.reason is Reason.STORE_REFUSED
        assert "x" * 10 not in str(raised.value)


class TestUpdate:
    async def test_the_version_id_begins_with_the_commit(self, provider):
        await create(provider, "a")
        version = await update(provider, "a", b"w", revision="main@sha1:abcdef0123456789" + "0" * 24)
        assert version.startswith("abcdef012345-")
        assert len(version) == 64

    async def test_the_former_version_stays_as_previous(self, aws, provider):
        first = await create(provider, "a")
        second = await update(provider, "a", b"w")
        assert aws.secrets()["a"].labels == {first: ("AWSPREVIOUS",), second: ("SMC_PENDING", "AWSCURRENT")}

    async def test_our_label_moves_on_and_the_oldest_version_has_none(self, aws, provider):
        versions = [await create(provider, "a")]
        versions += [await update(provider, "a", value) for value in (b"w", b"x")]
        assert list(aws.secrets()["a"].labels.values()) == [(), ("AWSPREVIOUS",), ("SMC_PENDING", "AWSCURRENT")]

    async def test_a_label_that_was_moved_back_by_hand_is_moved_again(self, aws, client, provider):
        first = await create(provider, "a")
        second = await update(provider, "a", b"w")
        client.update_secret_version_stage(
            SecretId="a", VersionStage="AWSCURRENT", MoveToVersionId=first, RemoveFromVersionId=second
        )
        assert await update(provider, "a", b"w") == second
        assert aws.values() == {"a": b"w"}
        assert aws.versions("a") == 2

    async def test_an_id_that_another_value_took_gives_way_to_one_more(self, aws, provider):
        """An attempt was cut short after its put, and the same input is rendered otherwise now."""
        await create(provider, "a")
        seen = await look(provider, "a")
        aws.fail("UpdateSecretVersionStage", "InternalServiceError", times=3)
        with pytest.raises(RetryableError):
            await update(provider, "a", b"w", current=seen)
        rendered = replace(desired("a", b"w"), value=desired("a", b"W").value)
        await provider.update(rendered, current=seen, mark=ME, revision=REVISION, fence=FENCE)
        assert aws.values() == {"a": b"W"}

    async def test_a_move_whose_answer_was_lost_is_found_done(self, aws, provider):
        await create(provider, "a")
        aws.fail("UpdateSecretVersionStage", "InternalServiceError", commit=True)
        version = await update(provider, "a", b"w")
        assert await look(provider, "a") == RemoteSecret(A, version, ME)

    async def test_a_deletion_that_the_listing_does_not_show_yet_is_left_to_the_next_look(self, aws, provider):
        await create(provider, "a")
        seen = await look(provider, "a")
        aws.schedule_deletion("a")
        with pytest.raises(RetryableError) as raised:
            await update(provider, "a", b"w", current=seen)
        assert raised.value.reason is Reason.STORE_CHANGED

    async def test_a_value_written_before_the_deletion_is_not_replaced_unseen(self, aws, provider):
        await create(provider, "a")
        seen = replace(await look(provider, "a"), state=RemoteState.DELETION_SCHEDULED)
        aws.put_by_hand("a", b"by hand")
        aws.schedule_deletion("a")
        with pytest.raises(RetryableError) as raised:
            await update(provider, "a", b"w", current=seen)
        assert raised.value.reason is Reason.STORE_CHANGED
        assert aws.values() == {"a": b"by hand"}

    async def test_a_first_version_that_somebody_else_wrote_meanwhile_stays(self, aws, provider):
        aws.create_empty("a", tags=MY_TAGS)
        seen = await look(provider, "a")
        aws.put_by_hand("a", b"by hand")
        with pytest.raises(RetryableError) as raised:
            await update(provider, "a", b"w", current=seen)
        assert raised.value.reason is Reason.STORE_CHANGED
        assert aws.values() == {"a": b"by hand"}

    async def test_the_fence_is_asked_for_as_long_as_a_request_takes(self, provider):
        await create(provider, "a")
        fence = CountingFence(allowed=2)
        await update(provider, "a", b"w", fence=fence)
        assert fence.margins == [REQUEST_TIMEOUT, REQUEST_TIMEOUT]


class TestDelete:
    async def test_a_deleted_secret_can_be_restored_for_thirty_days(self, client, provider):
        await create(provider, "a")
        await provider.delete(await look(provider, "a"), fence=FENCE)
        left = client.describe_secret(SecretId="a")["DeletedDate"] - datetime.datetime.now(datetime.UTC)
        assert round(left / datetime.timedelta(days=1)) == 30

    async def test_what_somebody_else_took_since_the_listing_stays(self, aws, client, provider):
        await create(provider, "a")
        seen = await look(provider, "a")
        client.tag_resource(SecretId="a", Tags=tags_of(NEIGHBOUR))
        with pytest.raises(RetryableError) as raised:
            await provider.delete(seen, fence=FENCE)
        assert raised.value.reason is Reason.STORE_CHANGED
        assert aws.values() == {"a": b"v"}

    async def test_a_secret_that_aws_keeps_is_told(self, aws, provider):
        await create(provider, "a")
        aws.fail("DeleteSecret", "InvalidRequestException", 400)
        with pytest.raises(PermanentError, match="DeleteSecret for 'a'"):
            await provider.delete(await look(provider, "a"), fence=FENCE)


class TestDeclared:
    """Beyond the contract's tags: description and key, and what AWS's own names for a key mean."""

    @pytest.fixture
    def declaring(self, make_provider):
        def make(**declared):
            return make_provider(declared=AwsDeclared(**declared))

        return make

    async def test_what_is_declared_is_on_new_secrets(self, client, declaring):
        await create(declaring(tags={"team": "blue"}, description="d", kms_key_id="alias/team"), "a")
        found = client.describe_secret(SecretId="a")
        assert (found["Description"], found["KmsKeyId"]) == ("d", "alias/team")
        assert {"Key": "team", "Value": "blue"} in found["Tags"]

    @pytest.mark.parametrize(
        ("declared", "operations"),
        [
            pytest.param({"description": "d"}, {"UpdateSecret": 1}, id="description"),
            pytest.param({"kms_key_id": "alias/team"}, {"UpdateSecret": 1}, id="key"),
            pytest.param({"tags": {"team": "blue"}}, {"TagResource": 1}, id="tags"),
        ],
    )
    async def test_it_is_set_without_another_version(self, aws, provider, declaring, declared, operations):
        version = await create(provider, "a")
        other = declaring(**declared)
        seen = await look(other, "a")
        assert seen == RemoteSecret(A, version, ME, options_differ=True)
        aws.clear_calls()
        await other.adopt(seen, mark=ME, fence=FENCE)
        assert counted(aws) == {"DescribeSecret": 1} | operations
        assert await look(other, "a") == RemoteSecret(A, version, ME)
        assert aws.versions("a") == 1

    async def test_what_is_not_declared_stays(self, client, declaring, provider):
        await create(declaring(description="d", tags={"team": "blue"}), "a")
        await update(provider, "a", b"w")
        found = client.describe_secret(SecretId="a")
        assert found["Description"] == "d"
        assert {"Key": "team", "Value": "blue"} in found["Tags"]

    async def test_what_somebody_else_took_since_the_listing_is_left(self, aws, client, provider, declaring):
        await create(provider, "a")
        seen = await look(declaring(description="d"), "a")
        client.tag_resource(SecretId="a", Tags=tags_of(NEIGHBOUR))
        aws.clear_calls()
        with pytest.raises(RetryableError) as raised:
            await declaring(description="d").adopt(seen, mark=ME, fence=FENCE)
        assert raised.value.reason is Reason.STORE_CHANGED
        assert counted(aws) == {"DescribeSecret": 1}

    async def test_a_secret_that_has_fifty_tags_is_told(self, provider, declaring):
        await create(declaring(tags={f"k{number}": "v" for number in range(40)}), "a")
        await declaring(tags={f"l{number}": "v" for number in range(7)}).adopt(
            await look(provider, "a"), mark=ME, fence=FENCE
        )
        with pytest.raises(PermanentError, match="a secret has at most 50 tags") as raised:
            await declaring(tags={"one": "more"}).adopt(await look(provider, "a"), mark=ME, fence=FENCE)
        assert raised.value.reason is Reason.STORE_REFUSED

    @pytest.mark.parametrize(
        ("declared", "present", "same"),
        [
            ("alias/a", "alias/a", True),
            ("alias/a", "arn:aws:kms:eu-north-1:123456789012:alias/a", True),
            ("alias/a", "alias/b", False),
            ("1234-ab", "arn:aws:kms:eu-north-1:123456789012:key/1234-ab", True),
            ("arn:aws:kms:eu-north-1:123456789012:key/1234-ab", "arn:aws:kms:eu-north-1:123456789012:key/1234-ac", False),
            ("alias/a", "arn:aws:kms:eu-north-1:123456789012:key/1234-ab", True),
            ("alias/a", None, False),
            ("1234-ab", None, False),
            ("alias/aws/secretsmanager", None, True),
        ],
    )  # fmt: skip
    def test_one_key_has_several_names(self, declared, present, same):
        entry = {} if present is None else {"KmsKeyId": present}
        assert AwsDeclared(kms_key_id=declared).differs(entry) is not same


REFUSALS = {
    "AccessDeniedException": (PermanentError, Reason.STORE_ACCESS_DENIED, "secretsmanager:PutSecretValue"),
    "EncryptionFailure": (PermanentError, Reason.STORE_REFUSED, "KMS key"),
    "ExpiredTokenException": (PermanentError, Reason.CREDENTIALS_UNAVAILABLE, "has expired"),
    "InvalidParameterException": (PermanentError, Reason.STORE_REFUSED, "refuses PutSecretValue for 'a'"),
    "InvalidRequestException": (PermanentError, Reason.STORE_REFUSED, "refuses PutSecretValue for 'a'"),
    "InvalidSignatureException": (PermanentError, Reason.STORE_ACCESS_DENIED, "does not accept access key"),
    "LimitExceededException": (PermanentError, Reason.STORE_REFUSED, "quota"),
    "ResourceNotFoundException": (PermanentError, Reason.STORE_REFUSED, "refuses PutSecretValue for 'a'"),
    "UnrecognizedClientException": (PermanentError, Reason.STORE_ACCESS_DENIED, "does not accept access key"),
    "<html>": (PermanentError, Reason.STORE_REFUSED, "Unknown"),
}
PASSING = {
    "ThrottlingException": (400, Reason.RATE_LIMITED),
    "TooManyRequestsException": (429, Reason.RATE_LIMITED),
    "InternalServiceError": (500, Reason.STORE_UNAVAILABLE),
    "ServiceUnavailableException": (503, Reason.STORE_UNAVAILABLE),
    "a broken connection": (0, Reason.STORE_UNAVAILABLE),
}


class TestRefusals:
    @pytest.mark.parametrize(("code", "expected"), REFUSALS.items(), ids=REFUSALS.keys())
    async def test_a_refusal_says_what_mends_it(self, aws, provider, code, expected):
        kind, reason, text = expected
        await create(provider, "a")
        current = await look(provider, "a")
        aws.fail("PutSecretValue", code, 400)
        with pytest.raises(kind, match=text) as raised:
            await update(provider, "a", b"w", current=current)
        assert raised.value.reason is reason
        assert "A fault that the test asked for" not in str(raised.value)
        assert len(aws.writes()) == 2

    @pytest.mark.parametrize(("code", "status", "reason"), [(c, *e) for c, e in PASSING.items()], ids=PASSING.keys())
    async def test_what_passes_is_tried_three_times(self, aws, provider, code, status, reason):
        aws.fail("CreateSecret", code, status, times=9)
        with pytest.raises(RetryableError) as raised:
            await create(provider, "a")
        assert (raised.value.reason, raised.value.retry_after) == (reason, None)
        assert len(aws.writes()) == 3

    @pytest.mark.parametrize(("code", "status", "reason"), [(c, *e) for c, e in PASSING.items()], ids=PASSING.keys())
    async def test_what_passed_leaves_no_trace(self, aws, provider, code, status, reason):
        aws.fail("CreateSecret", code, status, times=2)
        await create(provider, "a")
        assert aws.values() == {"a": b"v"}

    async def test_a_long_retry_after_is_left_to_the_caller(self, aws, provider):
        aws.fail("CreateSecret", "ThrottlingException", 400, times=9, retry_after=60)
        with pytest.raises(RetryableError) as raised:
            await create(provider, "a")
        assert raised.value.retry_after == 60.0
        assert len(aws.writes()) == 1

    async def test_a_short_retry_after_is_waited_for(self, aws, provider):
        aws.fail("CreateSecret", "ThrottlingException", 400, retry_after=0.05)
        await create(provider, "a")
        first, second = aws.writes()
        assert second.at - first.at >= 0.05

    async def test_a_refused_look_ends_the_others(self, aws, provider):
        aws.fail("DescribeSecret", "AccessDeniedException", 400, times=1)
        with pytest.raises(PermanentError, match="secretsmanager:DescribeSecret") as raised:
            await provider.observe([SecretName(f"s-{number}") for number in range(10)], mark=ME)
        assert raised.value.reason is Reason.STORE_ACCESS_DENIED

    async def test_a_region_that_cannot_be_is_told(self, make_provider):
        with pytest.raises(PermanentError, match="no region 'eu central'"):
            await make_provider(region="eu central", endpoint_url=None).observe([], mark=ME)

    async def test_an_address_that_nobody_listens_at_is_unavailable(self, make_provider):
        with pytest.raises(RetryableError, match="did not answer") as raised:
            await make_provider(endpoint_url="http://127.0.0.1:9").observe([], mark=ME)
        assert raised.value.reason is Reason.STORE_UNAVAILABLE
