"""Raw mode: which services, environments and files are found, and what becomes of them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secret_manager_controller.decrypt import Decryptor, Document, Format, KeyRing
from secret_manager_controller.errors import ControllerError, PermanentError, Reason
from secret_manager_controller.model.plaintext import Plaintext
from secret_manager_controller.model.secret import HashKey
from secret_manager_controller.render.leaves import joined_key
from secret_manager_controller.render.protocol import Tree
from secret_manager_controller.render.raw import gather_raw, render_raw

TreeOf = Callable[[Mapping[str, bytes]], Tree]
Reader = Any

PROFILE = "deployment-configuration/profiles/dev"
ENV = f"{PROFILE}/application.secrets.env"
YAML = f"{PROFILE}/application.secrets.yaml"
PROPERTIES = f"{PROFILE}/application.properties"
CANARY = "canary-5up3rs3cr3t"


def render(tree: Tree, reader: Reader, base_path: str | None = None, environment: str = "dev") -> Plaintext:
    return render_raw(gather_raw(tree, environment=environment, base_path=base_path), read_document=reader)


def keys(plaintext: Plaintext) -> dict[str | None, dict[str, str]]:
    """Return what was rendered, as text by service and key."""
    return {
        service.service: {entry.key: entry.value.expose().decode() for entry in service.entries}
        for service in plaintext.services
    }


def refused(tree: Tree, reader: Reader, base_path: str | None = None, environment: str = "dev") -> ControllerError:
    """Return the error, once it is known that neither it nor what led to it shows a value."""
    with pytest.raises(ControllerError) as caught:
        render(tree, reader, base_path, environment)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)
    assert CANARY not in shown
    return caught.value


# --- where services are

LAYOUTS = {
    "every-service-below-the-base-path": (
        ["apps/a/" + ENV, "apps/b/" + ENV, "elsewhere/c/" + ENV],
        "apps",
        {"a", "b"},
    ),
    "a-single-service-at-the-base-path": (["apps/a/" + ENV, "apps/b/" + ENV], "apps/a", {"a"}),
    "a-single-service-at-the-root": ([ENV], None, {None}),
    "services-at-the-root": (["a/" + ENV, "b/" + ENV], None, {"a", "b"}),
    "without-a-base-path-one-level-deeper": (["microservices/a/" + ENV, "microservices/b/" + ENV], None, {"a", "b"}),
    "without-a-base-path-not-any-level": (["a/" + ENV, "x/y/z/" + ENV], None, {"a"}),
    "the-root-as-base-path-is-not-searched-deeper": (["a/" + ENV, "x/b/" + ENV], ".", {"a"}),
    "a-service-and-services-below-it": ([ENV, "a/" + ENV], None, {None, "a"}),
    "a-base-path-service-and-services-below-it": (["apps/" + ENV, "apps/a/" + ENV], "apps", {"apps", "a"}),
    "a-base-path-may-be-spelled-in-several-ways": (["apps/a/" + ENV], "./apps/", {"a"}),
    "hidden-directories-are-not-searched": (["a/" + ENV, ".github/" + ENV], None, {"a"}),
    "without-profiles": (["a/deployment-configuration/dev/application.secrets.env", "b/" + ENV], None, {"a", "b"}),
    "a-service-without-the-environment-is-left-out": (["a/" + ENV, "b/" + ENV.replace("dev", "prod")], None, {"a"}),
    "a-service-without-the-files-is-left-out": (["a/" + ENV, f"b/{PROFILE}/kustomization.yaml"], None, {"a"}),
}


@pytest.mark.parametrize(("files", "base_path", "services"), LAYOUTS.values(), ids=LAYOUTS)
def test_services_are_found(
    tree_of: TreeOf, reader: Reader, files: list[str], base_path: str | None, services: set[str | None]
) -> None:
    plaintext = render(tree_of(dict.fromkeys(files, b"KEY=1")), reader, base_path)
    assert {service: {"KEY": "1"} for service in services} == keys(plaintext)


def test_services_come_in_the_order_of_their_names(tree_of: TreeOf, reader: Reader) -> None:
    plaintext = render(tree_of(dict.fromkeys([f"{name}/{ENV}" for name in "cab"], b"KEY=1")), reader)
    assert [service.service for service in plaintext.services] == ["a", "b", "c"]


def test_other_environments_are_not_read(tree_of: TreeOf, reader: Reader) -> None:
    files = {
        f"a/deployment-configuration/profiles/{name}/application.secrets.env": b"KEY=1" for name in ("dev", "dev-cf")
    }
    render(tree_of(files), reader, environment="dev-cf")
    assert list(reader.formats) == ["a/deployment-configuration/profiles/dev-cf/application.secrets.env"]


# --- which files

FILES = {
    "application.secrets.env": Format.DOTENV,
    "application.secrets.yaml": Format.YAML,
    "application.secrets.yml": Format.YAML,
}


@pytest.mark.parametrize(("name", "format"), FILES.items())
def test_each_file_is_read_in_its_format(tree_of: TreeOf, reader: Reader, name: str, format: Format) -> None:  # noqa: A002
    plaintext = render(tree_of({f"a/{PROFILE}/{name}": b"KEY=1", f"a/{PROFILE}/other.env": b"OTHER=2"}), reader)
    assert {f"a/{PROFILE}/{name}": format} == reader.formats
    (entry,) = plaintext.services[0].entries
    assert ("KEY", f"a/{PROFILE}/{name}") == (entry.key, entry.path)


def test_all_files_of_a_service_are_one(tree_of: TreeOf, reader: Reader) -> None:
    tree = tree_of({ENV: b"#sops\nA=1\nB=2", YAML: b"#sops\nc/d=3\nc/list/0=4\nc/list/1/e=5", PROPERTIES: b"x.y = 6\n"})
    expected = {"A": "1", "B": "2", "c.d": "3", "c.list[0]": "4", "c.list[1].e": "5", "properties": '{"x.y":"6"}'}
    assert {None: expected} == keys(render(tree, reader))


def test_the_source_hash_is_the_documents(tree_of: TreeOf, reader: Reader) -> None:
    tree = tree_of({ENV: b"#sops\nA=1\n"})
    (entry,) = render(tree, reader).services[0].entries
    assert reader(b"#sops\nA=1\n", Format.DOTENV, ENV).leaves[0].source_hash == entry.source_hash


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (("a",), "a"),
        (("a", "b", "c"), "a.b.c"),
        (("a", 0), "a[0]"),
        (("a", 0, 1, "b"), "a[0][1].b"),
        ((0, "a"), "[0].a"),
        (("a.b", "c"), "a.b.c"),
        (("",), ""),
    ],
)
def test_a_path_becomes_a_key(path: tuple[str | int, ...], key: str) -> None:
    assert key == joined_key(path)


@given(st.lists(st.one_of(st.from_regex(r"[a-z_]+", fullmatch=True), st.integers(0, 99)), min_size=1, max_size=6))
def test_paths_without_dots_stay_apart(path: list[str | int]) -> None:
    import re

    parts = [
        int(index) if index else name for name, index in re.findall(r"([a-z_]+)|\[(\d+)\]", joined_key(tuple(path)))
    ]
    assert path == parts


# --- what is missing


def test_a_missing_base_path_names_what_is_there(tree_of: TreeOf, reader: Reader) -> None:
    tree = tree_of({"apps/team/a/" + ENV: b"A=1", "apps/other/x": b"", ".git/x": b"", "README.md": b""})
    error = refused(tree, reader, "apps/taem/a")
    assert (PermanentError, Reason.PATH_NOT_FOUND) == (type(error), error.reason)
    assert error.message == "basePath 'apps/taem/a' is not a directory in the source; 'apps' holds other, team"
    assert "the source's root holds apps" in refused(tree, reader, "nothing").message


@pytest.mark.parametrize("base_path", ["../apps", "/", "/apps", "apps//a", "a/../apps"])
def test_a_base_path_outside_is_refused(tree_of: TreeOf, reader: Reader, base_path: str) -> None:
    error = refused(tree_of({"apps/a/" + ENV: b"A=1"}), reader, base_path)
    assert (PermanentError, Reason.PATH_NOT_FOUND) == (type(error), error.reason)
    assert "not one inside the source" in error.message


def test_an_environment_that_leads_elsewhere_is_refused(tree_of: TreeOf, reader: Reader) -> None:
    error = refused(tree_of({"a/" + ENV: b"A=1"}), reader, environment="../../../b")
    assert Reason.PATH_NOT_FOUND is error.reason


def test_a_base_path_without_services_names_what_is_there(tree_of: TreeOf, reader: Reader) -> None:
    tree = tree_of({f"apps/{name:02}/x": b"" for name in range(12)})
    error = refused(tree, reader, "apps")
    assert Reason.PATH_NOT_FOUND is error.reason
    assert "in 'apps' or below; it holds 00, 01, 02, 03, 04, 05, 06, 07, 08, 09 and 2 more" in error.message
    assert "in the source's root or below; it holds apps;" in refused(tree, reader).message


def test_a_missing_environment_names_those_that_exist(tree_of: TreeOf, reader: Reader) -> None:
    tree = tree_of(
        {
            "a/deployment-configuration/profiles/dev/application.secrets.env": b"A=1",
            "a/deployment-configuration/profiles/prod/application.secrets.env": b"A=1",
            "a/deployment-configuration/legacy/application.secrets.env": b"A=1",
            "a/deployment-configuration/README.md": b"",
        }
    )
    error = refused(tree, reader, environment="stage")
    assert (PermanentError, Reason.PATH_NOT_FOUND) == (type(error), error.reason)
    assert error.message == "environment 'stage' is not in a/deployment-configuration; there is dev, legacy, prod"


def test_a_missing_environment_of_many_services(tree_of: TreeOf, reader: Reader) -> None:
    error = refused(tree_of({"a/" + ENV: b"A=1", "b/deployment-configuration/x": b""}), reader, environment="stage")
    assert error.message == "environment 'stage' is not in any of 2 services; there is dev"


def test_no_file_at_all_is_an_empty_source(tree_of: TreeOf, reader: Reader) -> None:
    error = refused(tree_of({f"a/{PROFILE}/kustomization.yaml": b"", f"b/{PROFILE}/other.env": b"A=1"}), reader)
    assert (PermanentError, Reason.EMPTY_SOURCE) == (type(error), error.reason)
    assert "application.secrets.env" in error.message
    assert f"a/{PROFILE}" in error.message


@pytest.mark.parametrize("empty", [b"", b"#sops\n", b"# nothing yet\n"])
def test_files_without_an_entry_are_an_empty_source_even_beside_another_service(
    tree_of: TreeOf, reader: Reader, empty: bytes
) -> None:
    error = refused(tree_of({"a/" + ENV: b"A=1", "b/" + ENV: empty, "b/" + PROPERTIES: b"# none\n"}), reader)
    assert (PermanentError, Reason.EMPTY_SOURCE) == (type(error), error.reason)
    assert f"there is no entry in b/{ENV} and b/{PROPERTIES}; add one or remove the file" == error.message


def test_an_empty_file_beside_a_full_one_is_none(tree_of: TreeOf, reader: Reader) -> None:
    assert keys(render(tree_of({ENV: b"A=1", YAML: b"", PROPERTIES: b""}), reader)) == {None: {"A": "1"}}


# --- what is refused


@pytest.mark.parametrize("content", [b"#sops\nA=1\nB/c=\n", b"A=1\nB/c=\n"], ids=["encrypted", "plain"])
def test_an_empty_value_is_refused(tree_of: TreeOf, reader: Reader, content: bytes) -> None:
    error = refused(tree_of({YAML: content}), reader)
    assert (PermanentError, Reason.EMPTY_VALUE) == (type(error), error.reason)
    assert f"{YAML}: 'B.c' is empty; give it a value or remove it" == error.message


def test_a_readable_value_in_an_encrypted_file_is_refused(tree_of: TreeOf, reader: Reader) -> None:
    error = refused(tree_of({ENV: f"#sops\nA=1\nB=plain:{CANARY}\n".encode()}), reader)
    assert (PermanentError, Reason.INVALID_DOCUMENT) == (type(error), error.reason)
    assert f"{ENV}: 'B' is not encrypted, although the file is; encrypt the whole file with sops" == error.message


def test_readable_values_in_a_file_without_sops_are_allowed(tree_of: TreeOf, reader: Reader) -> None:
    assert keys(render(tree_of({ENV: b"A=plain:1"}), reader)) == {None: {"A": "plain:1"}}


def test_one_key_in_two_files_is_refused(tree_of: TreeOf, reader: Reader) -> None:
    error = refused(tree_of({ENV: f"A={CANARY}".encode(), YAML: f"A={CANARY}".encode()}), reader)
    assert (PermanentError, Reason.NAME_COLLISION) == (type(error), error.reason)
    assert f"key 'A' is in {ENV} and in {YAML}; keep one of them" == error.message


def test_one_key_twice_in_one_file_is_refused(tree_of: TreeOf, reader: Reader) -> None:
    error = refused(tree_of({YAML: b"a/b=1\na.b=2\n"}), reader)
    assert f"key 'a.b' is twice in {YAML}; keep one of them" == error.message


def test_the_key_of_the_properties_is_one_like_others(tree_of: TreeOf, reader: Reader) -> None:
    error = refused(tree_of({ENV: b"properties=1", PROPERTIES: b"a=1"}), reader)
    assert f"key 'properties' is in {ENV} and in {PROPERTIES}; keep one of them" == error.message


def test_the_same_key_in_two_services_is_none_of_our_business(tree_of: TreeOf, reader: Reader) -> None:
    plaintext = render(tree_of({"a/" + ENV: b"A=1", "b/" + ENV: b"A=2"}), reader)
    assert keys(plaintext) == {"a": {"A": "1"}, "b": {"A": "2"}}


def test_files_with_and_without_profiles_are_refused(tree_of: TreeOf, reader: Reader) -> None:
    error = refused(tree_of({ENV: b"A=1", "deployment-configuration/dev/application.properties": b"a=1"}), reader)
    assert (PermanentError, Reason.NAME_COLLISION) == (type(error), error.reason)
    assert f"{PROFILE} and deployment-configuration/dev both hold files" in error.message


def test_a_directory_without_files_is_no_second_layout(tree_of: TreeOf, reader: Reader) -> None:
    tree = tree_of({ENV: b"A=1", "deployment-configuration/dev/kustomization.yaml": b""})
    assert keys(render(tree, reader)) == {None: {"A": "1"}}


@pytest.mark.parametrize("link", [ENV, PROFILE, "deployment-configuration/profiles", "deployment-configuration"])
def test_a_link_on_the_way_is_told(tree_of: TreeOf, reader: Reader, link: str) -> None:
    tree: Any = tree_of({"real/" + ENV: b"A=1", "service/x": b""})
    place = tree.root / "service" / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(tree.root / "real" / link)
    error = refused(tree, reader, "service")
    assert (PermanentError, Reason.INVALID_ARCHIVE) == (type(error), error.reason)
    assert "symbolic link" in error.message


def test_what_the_reader_raises_is_passed_on(tree_of: TreeOf) -> None:
    def fail(_data: bytes, _format: Format, path: str) -> Document:
        raise PermanentError(Reason.DECRYPTION_FAILED, f"{path} could not be decrypted")

    assert Reason.DECRYPTION_FAILED is refused(tree_of({ENV: b"A=1"}), fail).reason


# --- with the real reader


def test_plain_files_through_the_decryptor(tree_of: TreeOf) -> None:
    decryptor = Decryptor(HashKey(b"k" * 32))

    def read(data: bytes, format: Format, path: str) -> Document:  # noqa: A002
        return decryptor.read(data, format=format, path=path, keys=KeyRing())

    tree = tree_of(
        {
            ENV: b"# comment\nDATABASE_URL=postgres://u:p@h/d\n",
            YAML: b"database:\n  hosts: [a, b]\n  port: 5432\n  tls: true\n",
            PROPERTIES: b"spring.name = na\\u00efve\nempty =\nwith\\ space: v\\\n    w\n",
        }
    )
    assert keys(render(tree, read)) == {
        None: {
            "DATABASE_URL": "postgres://u:p@h/d",
            "database.hosts[0]": "a",
            "database.hosts[1]": "b",
            "database.port": "5432",
            "database.tls": "true",
            "properties": '{"empty":"","spring.name":"naïve","with space":"vw"}',
        }
    }
