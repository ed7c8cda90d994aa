"""What an object declares beside its values: what differs, what is written over what stands there."""

import pytest
from google.cloud.secretmanager_v1.types import resources

from secret_manager_controller.providers.gcp_declared import Declared
from secret_manager_controller.providers.gcp_login import GcpReplication

KEY, OTHER = (f"projects/p/locations/global/keyRings/r/cryptoKeys/{name}" for name in ("k", "other"))
PLACES = (("europe-west1", KEY), ("europe-west4", None))


def encryption(key):
    return {} if key is None else {"customer_managed_encryption": {"kms_key_name": key}}


def automatic(key=None):
    return {"automatic": encryption(key)}


def managed(**keys):
    replicas = [{"location": place.replace("_", "-"), **encryption(key)} for place, key in keys.items()]
    return {"user_managed": {"replicas": replicas}}


def stored(**fields):
    return resources.Secret.pb()(name="projects/1/secrets/a", **fields)


def declared(*, labels=None, replication=None, regional=False):
    return Declared(labels=labels, replication=replication, regional=regional)


@pytest.mark.parametrize(
    ("found", "wish", "differs"),
    [
        pytest.param({"labels": {"a": "b"}}, {}, False, id="nothing declared"),
        pytest.param({"labels": {"team": "a", "x": "y"}}, {"labels": {"team": "a"}}, False, id="a label among others"),
        pytest.param({"labels": {"team": "b"}}, {"labels": {"team": "a"}}, True, id="another label"),
        pytest.param({}, {"labels": {"team": "a"}}, True, id="no label"),
        pytest.param({}, {"labels": {"managed-by": "me"}}, False, id="a label of the mark is no wish"),
        pytest.param({"replication": automatic(KEY)}, {}, False, id="no replication declared"),
        pytest.param({"replication": automatic(KEY)}, {"replication": GcpReplication()}, False, id="no key declared"),
        pytest.param(
            {"replication": automatic(KEY)}, {"replication": GcpReplication(kms_key=KEY)}, False, id="this key"
        ),
        pytest.param({"replication": automatic()}, {"replication": GcpReplication(kms_key=KEY)}, True, id="no key"),
        pytest.param(
            {"replication": automatic(OTHER)}, {"replication": GcpReplication(kms_key=KEY)}, True, id="another key"
        ),
        pytest.param(
            {"replication": managed(europe_west1=KEY, europe_west4=OTHER)},
            {"replication": GcpReplication(PLACES)},
            False,
            id="the keys of its places, one not declared",
        ),
        pytest.param(
            {"replication": managed(europe_west1=OTHER)},
            {"replication": GcpReplication(PLACES)},
            True,
            id="another key in one place",
        ),
        pytest.param(
            {"replication": automatic()}, {"replication": GcpReplication(PLACES)}, False, id="it cannot be moved"
        ),
        pytest.param({}, {"replication": GcpReplication(kms_key=KEY), "regional": True}, False, id="regional"),
    ],
)
def test_only_what_is_declared_and_can_be_changed_differs(found, wish, differs):
    assert declared(**wish).differs(stored(**found)) is differs


def test_labels_are_written_beside_others_and_replication_is_not():
    fields = declared(labels={"team": "a"}).over(stored(labels={"x": "y"}, replication=automatic(KEY)))
    assert fields == {"labels": {"team": "a", "x": "y"}}


def test_a_key_is_written_where_it_differs_and_the_other_places_keep_theirs():
    found = stored(replication=managed(europe_west1=OTHER, europe_west4=OTHER))
    fields = declared(replication=GcpReplication(PLACES)).over(found)
    expected = resources.Replication.pb()(**managed(europe_west1=KEY, europe_west4=OTHER))
    assert fields == {"labels": {}, "replication": expected}
    assert found == stored(replication=managed(europe_west1=OTHER, europe_west4=OTHER))


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        pytest.param({}, {"labels": {}, "replication": automatic()}, id="nothing declared"),
        pytest.param({"regional": True, "labels": {"a": "b"}}, {"labels": {"a": "b"}}, id="regional"),
    ],
)
def test_a_new_secret_has_what_google_requires(wish, expected):
    assert declared(**wish).of_new() == expected
