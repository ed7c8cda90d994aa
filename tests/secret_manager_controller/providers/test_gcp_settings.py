"""What a spec and the environment make of a Google provider: logins, endpoints, places."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.model.spec import GcpStore
from secret_manager_controller.providers.gcp import GcpProvider
from secret_manager_controller.providers.gcp_login import (
    GcpCredentialsFile,
    GcpEndpoints,
    GcpFederation,
    GcpKey,
    GcpKeyFile,
    GcpMetadata,
    GcpQuotas,
    GcpReplication,
)
from secret_manager_controller.providers.gcp_marks import LABELS
from secret_manager_controller.providers.gcp_settings import READS, WRITES, gcp_endpoints, gcp_options
from secret_manager_controller.testing.contract_subject import ME

EMAIL = "writer@p.iam.gserviceaccount.com"
KEY = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k"
FILE = {"GOOGLE_APPLICATION_CREDENTIALS": "/var/run/credentials.json"}
PATH = Path("/var/run/credentials.json")
SECRET = {"key.json": b"{}", "other": b"[]"}


def store(**fields):
    return GcpStore.model_validate({"projectId": "my-project", **fields})


def auth(**fields):
    return {"auth": fields}


@pytest.mark.parametrize(
    ("fields", "secret", "environment", "expected"),
    [
        pytest.param({}, None, {}, GcpMetadata(), id="nothing said, on GKE"),
        pytest.param({}, None, FILE, GcpCredentialsFile(PATH), id="nothing said, with a file"),
        pytest.param({}, None, {"GCE_METADATA_HOST": "x:80"}, GcpMetadata("x:80"), id="another metadata server"),
        pytest.param(auth(authType="WorkloadIdentity"), None, {}, GcpMetadata(), id="workload identity on GKE"),
        pytest.param(auth(authType="WorkloadIdentity"), None, FILE, GcpFederation(PATH), id="federation"),
        pytest.param(
            auth(serviceAccountEmail=EMAIL), None, {}, GcpMetadata(impersonate=EMAIL), id="another account on GKE"
        ),
        pytest.param(
            auth(serviceAccountEmail=EMAIL), None, FILE, GcpFederation(PATH, EMAIL), id="another account, federated"
        ),
        pytest.param(auth(authType="JsonCredentials"), None, FILE, GcpKeyFile(PATH), id="the controller's key"),
        pytest.param(
            auth(authType="JsonCredentials", secretName="s"), SECRET, FILE, GcpKey(b"{}"), id="a Secret's key"
        ),
        pytest.param(
            auth(authType="JsonCredentials", secretName="s", secretKey="other", serviceAccountEmail=EMAIL),
            SECRET,
            {},
            GcpKey(b"[]", EMAIL),
            id="another data key and account",
        ),
    ],
)
def test_the_login_is_what_the_object_asks_for(fields, secret, environment, expected):
    assert gcp_options(store(**fields), secret, environment)["login"] == expected


@pytest.mark.parametrize(
    ("fields", "secret", "text"),
    [
        (auth(authType="JsonCredentials"), None, "GOOGLE_APPLICATION_CREDENTIALS; set it"),
        (auth(authType="JsonCredentials", secretName="s"), {}, "no usable data key 'key.json'"),
        (auth(authType="JsonCredentials", secretName="s"), {"key.json": b""}, "no usable data key 'key.json'"),
    ],
)
def test_what_is_missing_is_told(fields, secret, text):
    with pytest.raises(PermanentError, match=text) as raised:
        gcp_options(store(**fields), secret, {})
    assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE


@pytest.mark.parametrize(
    ("replication", "expected"),
    [
        (None, None),
        ({"automatic": {}}, GcpReplication()),
        (
            {"automatic": {"customerManagedEncryption": {"kmsKeyName": KEY}}},
            GcpReplication(kms_key=KEY),
        ),
        (
            {
                "userManaged": {
                    "replicas": [
                        {"location": "europe-west1", "customerManagedEncryption": {"kmsKeyName": KEY}},
                        {"location": "europe-west4"},
                    ]
                }
            },
            GcpReplication(replicas=(("europe-west1", KEY), ("europe-west4", None))),
        ),
    ],
)
def test_the_places_are_those_of_the_object(replication, expected):
    fields = {} if replication is None else {"replication": replication}
    assert gcp_options(store(**fields), None, {})["replication"] == expected


def test_all_else_is_taken_over():
    options = gcp_options(store(location="europe-west1", labels={"team": "a"}, keepVersions=3), None, {READS: "1200"})
    assert (options["project"], options["location"]) == ("my-project", "europe-west1")
    assert (options["labels"], options["keep_versions"]) == ({"team": "a"}, 3)
    assert options["quotas"] == GcpQuotas(reads=1200, writes=600)


@pytest.mark.parametrize("text", ["0", "-1", "many"])
def test_a_quota_is_a_number(text):
    with pytest.raises(PermanentError, match=WRITES):
        gcp_options(store(), None, {WRITES: text})


def test_endpoints_are_those_of_the_environment():
    assert gcp_endpoints({}) == GcpEndpoints()
    assert gcp_endpoints(
        {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": "https://sm.internal/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS": "https://iam.internal/",
            "CLOUDSDK_AUTH_TOKEN_HOST": "https://oauth2.internal/token",
            "GOOGLE_CLOUD_UNIVERSE_DOMAIN": "s3nsapis.fr",
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": "/etc/ca.pem",
        }
    ) == GcpEndpoints(
        "https://sm.internal/",
        token_url="https://oauth2.internal/token",
        iamcredentials="https://iam.internal/",
        universe="s3nsapis.fr",
        roots=Path("/etc/ca.pem"),
    )


async def test_a_provider_is_made_of_them(gcp):
    spec = GcpStore.model_validate(
        {"projectId": gcp.project, "auth": {"authType": "JsonCredentials", "secretName": "s"}, "location": "us-east1"}
    )
    options = gcp_options(spec, {"key.json": gcp.key.document}, gcp.environment)
    provider = GcpProvider(**options)
    assert (await provider.observe([], mark=ME)).secrets == {}
    await provider.aclose()


def test_google_s_packages_are_not_imported_for_it():
    """They take a quarter of a second and 24 MB, which an installation without Google need not pay."""
    script = (
        "import sys; import secret_manager_controller.providers.gcp_settings; "
        "print([m for m in sys.modules if m.split('.')[0] in {'grpc', 'google', 'proto'}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("label", sorted(LABELS))
def test_no_object_may_declare_a_label_of_the_owner_mark(label):
    with pytest.raises(ValidationError, match="owner marks"):
        store(labels={label: "mine"})
