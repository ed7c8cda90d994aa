"""From a build's output to entries."""

import pytest

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.model.secret import SourceHash
from secret_manager_controller.render.manifests import secret_entries

SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"


def entries(text):
    hashed = []

    def hash_of(key, value):
        hashed.append((key, value))
        return SourceHash(f"hash of {key}")

    found = secret_entries(text.encode(), path="o", hash_of=hash_of)
    assert [(entry.key, entry.value.expose()) for entry in found] == hashed
    return {entry.key: entry.value.expose() for entry in found}


def refused(text, reason):
    with pytest.raises(PermanentError) as caught:
        entries(text)
    assert caught.value.reason is reason
    assert caught.value.__context__ is None, "a cause could hold plaintext"
    return caught.value.message


def test_every_secret_and_nothing_else_is_read():
    other = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: not read}\n"
    second = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: t}\nstringData: {b: two}\n"
    assert entries(f"{SECRET}data: {{a: b25l}}\n{other}{second}") == {"a": b"one", "b": b"two"}


def test_data_is_bytes_and_string_data_wins():
    text = SECRET + "data: {binary: //79AA==, both: b25l}\nstringData: {both: two, text: ü}\n"
    assert entries(text) == {"binary": b"\xff\xfe\xfd\0", "both": b"two", "text": "ü".encode()}


def test_base64_may_have_line_ends():
    assert entries(SECRET + "data:\n  a: |\n    b25l\n    dHdv\n") == {"a": b"onetwo"}


@pytest.mark.parametrize(
    ("text", "reason", "told"),
    [
        ("", Reason.EMPTY_SOURCE, "the build of o has no Secret; nothing is deleted"),
        ("kind: ConfigMap\n", Reason.EMPTY_SOURCE, "has no Secret"),
        (SECRET, Reason.EMPTY_SOURCE, "no Secret in the build of o has an entry"),
        (SECRET + "data: {a: '!'}", Reason.INVALID_DOCUMENT, "Secret s of o has 'a' in data, which is not base64"),
        (SECRET + "data: {a: YQ}", Reason.INVALID_DOCUMENT, "which is not base64"),
        (SECRET + "data: {a: 1}", Reason.INVALID_DOCUMENT, "'a' in data, which is not a string; quote it"),
        (SECRET + "stringData: {a: yes, b: true}", Reason.INVALID_DOCUMENT, "'b' in stringData, which is not a string"),
        (SECRET + "data: [a]", Reason.INVALID_DOCUMENT, "has a data that is not a mapping"),
        (SECRET + "data: {a: ''}", Reason.EMPTY_VALUE, "Secret s of o: 'a' is empty"),
        (
            SECRET + "stringData: {a: 'ENC[AES256_GCM,data:AA==,iv:AA==,tag:AA==,type:str]'}",
            Reason.DECRYPTION_FAILED,
            "'a' is still encrypted after the build",
        ),
        (SECRET.replace("v1", "example.com/v1"), Reason.INVALID_DOCUMENT, "has apiVersion 'example.com/v1'"),
        (
            f"{SECRET}data: {{a: YQ==}}\n---\n{SECRET.replace('name: s', 'name: t')}data: {{a: YQ==}}",
            Reason.NAME_COLLISION,
            "key 'a' is in Secret s of o and in Secret t of o; rename one of them",
        ),
        ("a: &a 1\nb: *a", Reason.BUILD_FAILED, "is not used: line 1: it has an anchor or alias"),
        ("a: [", Reason.BUILD_FAILED, "it is not YAML"),
    ],
)
def test_what_the_api_server_would_not_take_is_refused(text, reason, told):
    assert told in refused(text, reason)
