"""Which data keys a KMS is asked for, and for which nobody is."""

import pyrage
import pytest

from secret_manager_controller.decrypt import Decryptor, KeyRing, WrappedKey
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.model.secret import HashKey
from secret_manager_controller.unwrapping import KEEP_SECONDS, MAX_REQUESTS, AllowedKeys, DataKeyFinder

ARN = "arn:aws:kms:eu-central-1:123456789012:key/0c6f"
OTHER = "arn:aws:kms:eu-central-1:123456789012:key/1111"


class Service:
    """A KMS that notes what it is asked."""

    kind = "kms"

    def __init__(self):
        self.asked = []
        self.error = None

    async def unwrap(self, key, wrapped, context):
        self.asked.append((key, wrapped, dict(context)))
        if self.error:
            raise self.error
        return b"key of " + wrapped.encode()


class Bench:
    def __init__(self, allowed=ARN):
        self.now = 0.0
        self.service = Service()
        self.finder = DataKeyFinder(AllowedKeys.parse(allowed), clock=lambda: self.now)

    async def ring(self, *entries, keys=KeyRing(), namespace="team-a", service="mine", granted=None):  # noqa: B008 - it is frozen.
        service = self.service if service == "mine" else service
        return await self.finder.extended(keys, entries, service=service, namespace=namespace, granted=granted)


@pytest.fixture
def bench():
    return Bench()


def entry(wrapped="w", kind="kms", recipient=ARN, **fields):
    return WrappedKey(kind, recipient, wrapped, **fields)


async def test_an_allowed_key_is_asked_once_for_each_data_key(bench):
    ring = await bench.ring(entry("one", context=(("app", "idam"),)), entry("two"), entry("two"))
    assert ring.data_keys == {"one": b"key of one", "two": b"key of two"}
    assert sorted(bench.service.asked) == [(ARN, "one", {"app": "idam"}), (ARN, "two", {})]


async def test_a_data_key_is_kept_for_a_quarter_of_an_hour_and_for_its_login_only(bench):
    await bench.ring(entry())
    await bench.ring(entry())
    assert len(bench.service.asked) == 1
    other = Service()
    await bench.ring(entry(), service=other)
    assert len(other.asked) == 1
    bench.now = KEEP_SECONDS
    await bench.ring(entry())
    assert len(bench.service.asked) == 2


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (entry(recipient=OTHER), "is not allowed: add its id to SOPS_KMS_KEYS of the controller"),
        (entry(recipient=ARN + "0"), "is not allowed"),
        (entry(kind="gcp_kms", recipient="projects/p/locations/l/keyRings/r/cryptoKeys/k"), "is not allowed"),
        (entry(kind="gcp_kms"), "is not asked: only the KMS of the object's own store is, with its login"),
        (entry(kind="hc_vault", recipient="https://canary.invalid transit k"), "is of a kind that this controller"),
        (entry(details=(("role", "arn:aws:iam::6:role/x"),)), "its entry has role, which this controller does not use"),
        (entry(details=(("aws_profile", "x"),)), "its entry has aws_profile"),
        (entry(context=(("a", "?"),)), "its encryption context is not made of texts"),
    ],
)
async def test_everything_else_is_refused_by_name_and_nobody_is_asked(bench, wanted, why):
    ring = await bench.ring(wanted)
    assert why in ring.refused[wanted.label]
    assert (ring.data_keys, bench.service.asked) == ({}, [])


async def test_a_store_without_a_kms_asks_nobody(bench):
    assert "is not asked" in (await bench.ring(entry(), service=None)).refused[entry().label]


async def test_a_key_of_one_namespace_is_no_oracle_for_another():
    bench = Bench(f"team-a={ARN}, team-b={OTHER}")
    assert (await bench.ring(entry())).data_keys
    assert "is not allowed" in (await bench.ring(entry(), namespace="team-b")).refused[entry().label]
    assert (await bench.ring(entry(recipient=OTHER), namespace="team-b")).data_keys
    assert [key for key, _, _ in bench.service.asked] == [ARN, OTHER]


async def test_where_policies_count_they_alone_grant_keys():
    bench = Bench(ARN)
    refused = await bench.ring(entry(), granted=())
    assert "have its id added to spec.kmsKeys of a SecretManagerPolicy for 'team-a'" in refused.refused[entry().label]
    assert (refused.data_keys, bench.service.asked) == ({}, [])
    assert (await bench.ring(entry(recipient=OTHER), granted=[OTHER])).data_keys


async def test_a_grant_that_is_gone_opens_nothing_from_memory(bench):
    assert (await bench.ring(entry(), granted=[ARN])).data_keys
    assert not (await bench.ring(entry(), granted=[OTHER])).data_keys


async def test_a_refusal_is_told_and_an_outage_is_tried_again(bench):
    bench.service.error = PermanentError(Reason.DECRYPTION_FAILED, "is refused")
    assert (await bench.ring(entry())).refused == {entry().label: "is refused"}
    bench.service.error = RetryableError(Reason.KEY_UNAVAILABLE, "no answer")
    with pytest.raises(RetryableError):
        await bench.ring(entry())
    bench.service.error = None
    assert (await bench.ring(entry())).data_keys


async def test_too_many_data_keys_are_refused_before_anybody_is_asked(bench):
    with pytest.raises(PermanentError, match="at most 64"):
        await bench.ring(*(entry(str(number)) for number in range(MAX_REQUESTS + 1)))
    assert bench.service.asked == []


async def test_a_ring_with_data_keys_has_another_seal_and_the_same_id(bench):
    keys = KeyRing.parse([str(pyrage.x25519.Identity.generate()).encode()])
    ring = await bench.ring(entry(), keys=keys)
    assert (ring.id == keys.id, ring.seal != keys.seal, bool(ring)) == (True, True, True)
    assert await bench.ring(keys=keys) is keys


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "=" + ARN,
        f"{ARN}=x",
        "projects/p/locations/l/keyRings/r",
        "team-a=",
        "https://vault.vault.azure.net/keys/k/1",
        "https://vault.vault.azure.net/secrets/k",
        "http://vault.vault.azure.net/keys/k",
        "https://vault.vault.azure.net:8443/keys/k",
    ],
)
def test_a_setting_that_names_no_key_is_refused(text):
    with pytest.raises(ValueError, match="expected the ARN of an AWS KMS key"):
        AllowedKeys.parse(f"{ARN},{text}")


def test_keys_of_google_are_allowed_by_their_full_names():
    key = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k"
    allowed = AllowedKeys.parse(f"{ARN}, team-a={key}")
    assert allowed.allow(key, namespace="team-a")
    assert not allowed.allow(key, namespace="team-b")
    assert not allowed.allow(f"{key}/cryptoKeyVersions/1", namespace="team-a")


def test_keys_of_azure_are_allowed_with_all_their_versions_or_with_one():
    key, one, two = "https://vault.vault.azure.net/keys/sops", "/" + 32 * "1", "/" + 32 * "2"
    every = AllowedKeys.parse(f"team-a={key}")
    assert every.allow(key + one, namespace="team-a")
    assert every.allow(key + two, namespace="team-a")
    assert not every.allow(key + one, namespace="team-b")
    assert not every.allow(f"{key}-2{one}", namespace="team-a")
    single = AllowedKeys.parse(key + one)
    assert single.allow(key + one, namespace="team-a")
    assert not single.allow(key + two, namespace="team-a")


def test_what_is_no_sops_file_needs_no_kms():
    decryptor = Decryptor(HashKey(b"k" * 32))
    for data in (b"kms", b"{", b'{"sops": {"kms": 1}}', b'{"a": 1, "sops": {"mac": "x", "kms": [{"enc": "x"}]}}'):
        assert decryptor.needed_of_kms(data, KeyRing()) == ()
