"""Secrets are read by name, kept for a moment, and their keys found where the documents say."""

import base64

import pyrage
import pytest

from secret_manager_controller.controller.keys import HASH_KEY_SECRET, KeyRings, load_hash_key
from secret_manager_controller.controller.secrets import SECRET_TTL, SecretReader
from secret_manager_controller.decrypt import KeyRing
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.kube import SECRETS, KubeError
from secret_manager_controller.testing.clocks import ManualClock

OWN, SYSTEM = "team-a", "microscaler-system"
LABEL = "secret-management.microscaler.io%2Fsops-key%3Dtrue"


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def reader(kube, clock):
    return SecretReader(kube, clock=clock)


@pytest.fixture
def labelled(kube):
    """Return a function that makes a namespace's Secrets with the label; the API server's own selection stands aside."""

    def say(namespace, **secrets):
        items = [
            {
                "metadata": {"namespace": namespace, "name": name, "uid": name, "resourceVersion": str(number)},
                "data": {key.replace("_", "-"): base64.b64encode(value).decode() for key, value in data.items()},
            }
            for number, (name, data) in enumerate(secrets.items())
        ]
        kube.objects[f"{SECRETS.url(namespace)}?labelSelector={LABEL}&limit=51"] = {"metadata": {}, "items": items}

    return say


def forbid(kube, *paths):
    """Let the API server refuse paths, or all of them."""

    def refuse(verb, path):
        if not paths or any(part in path for part in paths):
            raise KubeError(403, "forbidden")

    kube.refuse = refuse


def put(kube, namespace, name, **data):
    encoded = {key.replace("_", "-"): base64.b64encode(value).decode() for key, value in data.items()}
    kube.put(SECRETS.url(namespace, name), metadata={"namespace": namespace, "name": name, "uid": "u"}, data=encoded)


def identity():
    key = pyrage.x25519.Identity.generate()
    return str(key).encode(), str(key.to_public())


def recipients(ring):
    return [age.recipient for age in ring.age]


@pytest.mark.parametrize("name", ["sops-private-key", "sops-gpg-key", "gpg-key"])
@pytest.mark.parametrize("data_key", ["private-key", "key", "gpg-key"])
async def test_a_key_is_found_under_every_documented_name(kube, reader, name, data_key):
    key, recipient = identity()
    put(kube, OWN, name, **{data_key: key})
    assert recipients(await KeyRings(reader).find((OWN, SYSTEM))) == [recipient]


async def test_the_objects_own_keys_win_and_all_of_them_count(kube, reader):
    (first, one), (second, two), (system, three) = identity(), identity(), identity()
    put(kube, OWN, "sops-private-key", private_key=first)
    put(kube, OWN, "gpg-key", key=second)
    put(kube, SYSTEM, "sops-private-key", private_key=system)
    rings = KeyRings(reader)
    assert sorted(recipients(await rings.find((OWN, SYSTEM)))) == sorted([one, two])
    assert recipients(await rings.find(("team-b", SYSTEM))) == [three]


async def test_without_any_key_the_ring_is_empty(reader):
    assert not await KeyRings(reader).find((OWN, SYSTEM))


async def test_a_secret_without_a_documented_data_key_is_told(kube, reader):
    put(kube, OWN, "sops-private-key", identity=b"x")
    with pytest.raises(
        PermanentError, match=r"team-a/sops-private-key has none of the data keys private-key, key, gpg"
    ):
        await KeyRings(reader).find((OWN, SYSTEM))


async def test_every_secret_with_the_label_counts_whatever_its_name(kube, reader, labelled):
    (first, one), (second, two), (third, three), (named, four) = (identity() for _ in range(4))
    labelled(OWN, blue={"private_key": first}, green={"identity.agekey": second, "notes": b"not a key", "key": third})
    put(kube, OWN, "gpg-key", key=named)
    put(kube, SYSTEM, "sops-private-key", private_key=identity()[0])
    assert sorted(recipients(await KeyRings(reader).find((OWN, SYSTEM)))) == sorted([one, two, three, four])


async def test_where_listing_is_forbidden_the_documented_names_are_read(kube, reader):
    key, recipient = identity()
    put(kube, OWN, "sops-gpg-key", key=key)
    forbid(kube, "labelSelector")
    assert recipients(await KeyRings(reader).find((OWN, SYSTEM))) == [recipient]


async def test_where_reading_is_forbidden_the_controllers_keys_are_used(kube, reader):
    key, recipient = identity()
    put(kube, SYSTEM, "sops-private-key", private_key=key)
    forbid(kube, f"/namespaces/{OWN}/")
    assert recipients(await KeyRings(reader).find((OWN, SYSTEM))) == [recipient]
    assert await KeyRings(reader).find((OWN,)) == KeyRing(unreadable=(OWN,))


async def test_a_refusal_is_kept_for_a_moment_too(kube, reader, clock):
    forbid(kube)
    rings = KeyRings(reader)
    await rings.find((OWN,))
    await rings.find((OWN,))
    assert len(kube.done("get")) == 4
    kube.refuse = lambda verb, path: None
    key, recipient = identity()
    put(kube, OWN, "sops-private-key", private_key=key)
    clock.now = SECRET_TTL
    assert recipients(await rings.find((OWN,))) == [recipient]


async def test_an_outage_is_no_refusal(kube, reader):
    def refuse(verb, path):
        if "labelSelector" in path:
            raise KubeError(500, "no answer")

    kube.refuse = refuse
    with pytest.raises(RetryableError, match="cannot list Secrets of team-a with the label") as caught:
        await KeyRings(reader).find((OWN, SYSTEM))
    assert caught.value.reason is Reason.KEY_UNAVAILABLE


async def test_a_secret_that_holds_no_key_is_named_and_not_shown(reader, labelled):
    labelled(OWN, blue={"private_key": identity()[0]}, green={"x.asc": b"canary"})
    with pytest.raises(
        PermanentError, match=r"data key 'x.asc' of the SOPS key Secret team-a/green is no key"
    ) as caught:
        await KeyRings(reader).find((OWN, SYSTEM))
    assert "canary" not in caught.value.message


async def test_more_keys_than_anybody_has_are_refused(reader, labelled):
    labelled(OWN, **{f"s{number}": {"key": b""} for number in range(51)})
    with pytest.raises(PermanentError, match="more than 50 Secrets of team-a have the label"):
        await KeyRings(reader).find((OWN, SYSTEM))


async def test_a_changed_key_is_seen_after_its_time_and_not_read_before(kube, reader, clock):
    rings = KeyRings(reader)
    put(kube, OWN, "sops-private-key", private_key=identity()[0])
    await rings.find((OWN,))
    await rings.find((OWN,))
    assert len(kube.done("get")) == 4  # One for each documented name, and one for the label.
    key, recipient = identity()
    put(kube, OWN, "sops-private-key", private_key=key)
    clock.now = SECRET_TTL
    assert recipients(await rings.find((OWN,))) == [recipient]


@pytest.mark.parametrize(("status", "told"), [(403, "grant the controller `get`"), (0, "no answer")])
async def test_a_secret_that_cannot_be_read_is_tried_again(kube, reader, status, told):
    def refuse(verb, path):
        raise KubeError(status, "no answer")

    kube.refuse = refuse
    with pytest.raises(RetryableError, match=told) as caught:
        await reader.read(OWN, "keys", unavailable=Reason.CREDENTIALS_UNAVAILABLE)
    assert caught.value.reason is Reason.CREDENTIALS_UNAVAILABLE


async def test_malformed_data_is_told_without_it(kube, reader):
    kube.put(SECRETS.url(OWN, "keys"), metadata={"namespace": OWN, "name": "keys"}, data={"k": "canary!"})
    with pytest.raises(PermanentError, match="no valid base64") as caught:
        await reader.read(OWN, "keys", unavailable=Reason.KEY_UNAVAILABLE)
    assert "canary" not in caught.value.message


async def test_the_hash_key_is_made_once_and_kept(kube):
    first = await load_hash_key(kube, SYSTEM)
    second = await load_hash_key(kube, SYSTEM)
    assert first == second
    assert kube.done("create") == [SECRETS.url(SYSTEM)]
    del kube.objects[SECRETS.url(SYSTEM, HASH_KEY_SECRET)]
    assert await load_hash_key(kube, SYSTEM) != first


async def test_of_two_replicas_that_make_a_hash_key_the_first_wins(kube):
    def meanwhile(verb, path):
        if verb == "create":
            put(kube, SYSTEM, HASH_KEY_SECRET, key=b"f" * 32)

    kube.refuse = meanwhile
    key = await load_hash_key(kube, SYSTEM)
    kube.refuse = lambda verb, path: None
    assert key == await load_hash_key(kube, SYSTEM)


async def test_a_hash_key_that_is_too_short_is_told_with_the_mend(kube):
    put(kube, SYSTEM, HASH_KEY_SECRET, key=b"short")
    with pytest.raises(PermanentError, match="delete the Secret"):
        await load_hash_key(kube, SYSTEM)
