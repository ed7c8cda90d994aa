"""SOPS files whose data keys only a KMS unwraps, by the real controller; and metadata that would send it elsewhere."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from secret_manager_controller.testing.tenants import YAML

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def keys(stack):
    """Return two keys of AWS KMS: everybody's, and one namespace's."""
    client = stack.aws.client("kms")
    return [client.create_key(Description="sops")["KeyMetadata"]["Arn"] for _ in range(2)]


@pytest.fixture(scope="module")
def controller(stack, keys):
    """Run a controller that allows them."""
    with stack.controller(SOPS_KMS_KEYS=f"{keys[0]}, of-another={keys[1]}") as running:
        yield running


@pytest.fixture
def canary():
    """Run a server that must see no request; return its address and what it saw."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.path)
            self.send_error(404)

        do_PUT = do_POST = do_GET  # noqa: N815 - the base class calls them so.

        def log_message(self, *_):
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()


def message(status):
    return status["conditions"][0]["message"]


def test_an_allowed_key_unwraps_with_the_objects_own_login(controller, stack, tenant, keys, encrypt_by_kms):
    tenant.commit({YAML: json.dumps(encrypt_by_kms(keys[0]))})
    stack.aws.clear_calls()
    tenant.apply()
    tenant.ready()
    assert tenant.values() == {"A": b"one"}
    assert [call.who for call in stack.aws.calls() if call.operation == "Decrypt"] == [
        stack.aws.access_keys.access_key_id
    ]


@pytest.mark.parametrize("which", ["of-another-namespace", "of-nobody"])
def test_a_key_that_is_not_allowed_is_never_asked_for(controller, stack, tenant, keys, encrypt_by_kms, which):
    """A tenant who copies another's file gets nothing of it, although the login could decrypt it."""
    arn = keys[1] if which == "of-another-namespace" else stack.aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    tenant.commit({YAML: json.dumps(encrypt_by_kms(arn))})
    stack.aws.clear_calls()
    tenant.apply()
    status = tenant.ready(reason="DecryptionFailed")
    assert f"AWS KMS {arn} is not allowed: add its id to SOPS_KMS_KEYS" in message(status)
    assert [call for call in stack.aws.calls() if call.operation == "Decrypt"] == []


REDIRECTIONS = {
    "vault": ("hc_vault", {"vault_address": "{}", "engine_path": "transit", "key_name": "k"}),
    "azure": ("azure_kv", {"vault_url": "{}", "name": "k", "version": "1"}),
    "azure-old": ("azure_kv", {"vaultUrl": "{}", "name": "k", "version": "1"}),
    "gcp": ("gcp_kms", {"resource_id": "{}/projects/p/locations/l/keyRings/r/cryptoKeys/k"}),
    "arn": ("kms", {"arn": "{}"}),
    "role": ("kms", {"arn": "", "role": "arn:aws:iam::666666666666:role/canary"}),
    "profile": ("kms", {"arn": "", "aws_profile": "canary"}),
    "unknown-field": ("kms", {"arn": "", "endpoint": "{}"}),
    "unknown-kind": ("future_kms", {"address": "{}"}),
}


@pytest.mark.parametrize("name", REDIRECTIONS)
def test_metadata_that_names_another_place_sends_nothing_there(
    controller, stack, tenant, keys, encrypt_by_kms, canary, name
):
    kind, fields = REDIRECTIONS[name]
    address, seen = canary
    document = encrypt_by_kms(keys[0])
    (genuine,) = document["sops"].pop("kms")
    entry = {field: value.format(address) for field, value in fields.items()} | {"enc": genuine["enc"]}
    document["sops"][kind] = [entry | ({"arn": keys[0]} if entry.get("arn") == "" else {})]
    tenant.commit({YAML: json.dumps(document)})
    stack.aws.clear_calls()
    tenant.apply()
    tenant.ready(reason="DecryptionFailed")
    assert seen == []
    assert {call.operation for call in stack.aws.calls()} & {"Decrypt", "AssumeRole"} == set()
