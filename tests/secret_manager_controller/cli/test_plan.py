"""`msmctl plan`, against a store in memory."""

import json

import pytest
import yaml

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.providers.registry import PROVIDERS
from secret_manager_controller.testing.store import FakeProvider

ME = OwnerMark("standalone", "team/app")
CANARY = "canary-5up3r-s3cr3t"


def test_shows_what_would_be_done_with_each_secret_and_writes_nothing(store, one_shot, worktree, manifest):
    manifest["spec"] |= {"prune": True, "adoption": "Adopt"}
    worktree(NEW="1", CHANGED="2", SAME="3", NOBODYS="4", NOBODYS_EQUAL="5", ANOTHERS="6")
    store.put_by_hand("app-CHANGED", b"old", mark=ME)
    store.put_by_hand("app-SAME", b"3", mark=ME)
    store.put_by_hand("app-NOBODYS", b"old")
    store.put_by_hand("app-NOBODYS_EQUAL", b"5")
    store.put_by_hand("app-ANOTHERS", b"6", mark=OwnerMark("standalone", "team/other"))
    store.put_by_hand("app-GONE", b"7", mark=ME)
    result = one_shot("plan")
    assert (
        result.stdout
        == """\
SecretManagerConfig 'team/app' (aws/eu-central-1, revision worktree):
  ! conflict app-ANOTHERS  (is managed by 'team/other'; choose another prefix or suffix)
  ~ update   app-CHANGED
  + create   app-NEW
  ± adopt    app-NOBODYS  (its value is replaced)
  ± adopt    app-NOBODYS_EQUAL
  - prune    app-GONE

Plan: 1 to create, 1 to update, 2 to adopt, 1 to prune, 1 unchanged, 1 in conflict.
"""
    )
    assert (result.stderr, result.exit_code) == ("", 0)
    assert store.writes() == []


def test_shows_what_gets_other_options_and_keeps_its_value(store, one_shot, worktree, monkeypatch):
    monkeypatch.setitem(PROVIDERS, "aws", lambda *_: FakeProvider(store, labels={"team": "blue"}))
    worktree(SAME="1")
    store.put_by_hand("app-SAME", b"1", mark=ME)
    assert "~ update   app-SAME  (its value stays, its options change)" in one_shot("plan").stdout
    assert one_shot("apply").exit_code == 0
    assert store.labels("app-SAME") == {"team": "blue"}
    assert store.versions("app-SAME") == 1
    assert "1 unchanged" in one_shot("plan").stdout


def test_shows_what_left_the_source_and_stays(store, one_shot, worktree, manifest):
    worktree(KEPT="1")
    store.put_by_hand("app-KEPT", b"1", mark=ME)
    for number in range(6):
        store.put_by_hand(f"app-GONE{number}", b"1", mark=ME)
    lines = one_shot("plan").stdout.splitlines()
    assert "  · orphan   app-GONE0  (left the source; spec.prune is false)" in lines
    assert lines[-1] == "Plan: 0 to create, 0 to update, 0 to adopt, 0 to prune, 1 unchanged, 6 orphaned."
    manifest["spec"]["prune"] = True
    lines = one_shot("plan").stdout.splitlines()
    assert "  ! held     app-GONE0  (left the source with many others)" in lines
    assert lines[-2] == "Plan: 0 to create, 0 to update, 0 to adopt, 0 to prune, 1 unchanged, 6 held back."
    assert "--confirm-prune" in lines[-1]
    lines = one_shot("plan", "--confirm-prune").stdout.splitlines()
    assert "  - prune    app-GONE0" in lines


@pytest.mark.parametrize("annotation", ["worktree", "another"])
def test_takes_the_annotation_that_confirms_a_prune_for_its_revision_only(
    store, one_shot, worktree, manifest, annotation
):
    manifest["spec"]["prune"] = True
    manifest["metadata"]["annotations"] = {"secret-management.microscaler.io/confirm-prune": annotation}
    worktree(KEPT="1")
    for number in range(6):
        store.put_by_hand(f"app-GONE{number}", b"1", mark=ME)
    assert ("  - prune    app-GONE0" in one_shot("plan").stdout) is (annotation == "worktree")


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
@pytest.mark.parametrize("verb", ["plan", "apply"])
def test_never_shows_a_value(store, one_shot, worktree, manifest, output, verb):
    manifest["spec"]["adoption"] = "Adopt"
    worktree(NEW=CANARY, CHANGED=CANARY, NOBODYS=CANARY)
    store.put_by_hand("app-CHANGED", f"{CANARY}-old".encode(), mark=ME)
    store.put_by_hand("app-NOBODYS", CANARY.encode())
    result = one_shot(verb, *(["-o", output] if verb == "plan" else []))
    assert result.exit_code == 0
    assert CANARY not in result.output


@pytest.mark.parametrize(
    ("stored", "mark", "code"),
    [(None, None, 2), (b"old", ME, 2), (b"1", ME, 0), (b"1", None, 3)],
    ids=["create", "update", "unchanged", "conflict"],
)
def test_exit_code_tells_changes_and_what_needs_a_decision(store, one_shot, worktree, stored, mark, code):
    worktree(KEY="1")
    if stored is not None:
        store.put_by_hand("app-KEY", stored, mark=mark)
    assert one_shot("plan").exit_code == 0
    assert one_shot("plan", "--exit-code").exit_code == code


def test_exit_code_tells_a_prune_that_is_held_back(store, one_shot, worktree, manifest):
    manifest["spec"]["prune"] = True
    worktree(KEPT="1")
    for number in range(6):
        store.put_by_hand(f"app-GONE{number}", b"1", mark=ME)
    assert one_shot("plan", "--exit-code").exit_code == 3
    assert one_shot("plan", "--exit-code", "--confirm-prune").exit_code == 2


@pytest.mark.parametrize(("output", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_prints_plans_as_data(store, one_shot, worktree, write_file, manifest, output, parse):
    worktree(KEY="1", TAKEN="2")
    store.put_by_hand("app-TAKEN", b"2")
    suspended = {
        **manifest,
        "metadata": {"name": "resting", "namespace": "team"},
        "spec": manifest["spec"] | {"suspend": True},
    }
    broken = {**manifest, "metadata": {"name": "broken", "namespace": "team"}, "spec": {}}
    result = one_shot("plan", "-f", write_file(manifest, suspended, broken), "-o", output)
    good, resting, bad = parse(result.stdout)["objects"]
    assert good == {
        "namespace": "team",
        "name": "app",
        "store": "aws/eu-central-1",
        "revision": "worktree",
        "actions": [
            {"action": "Create", "name": "app-KEY"},
            {
                "action": "Conflict",
                "name": "app-TAKEN",
                "message": "'app-TAKEN' exists and is not managed by this object; set spec.adoption: Adopt to take it over",
            },
        ],
        "held": [],
        "orphans": [],
    }
    assert resting == {"namespace": "team", "name": "resting", "suspended": True}
    assert bad["error"]["reason"] == "InvalidSpec"
    assert parse(result.stdout)["summary"]["create"] == 1
    assert result.stderr.startswith("Error: team/broken: InvalidSpec: spec.sourceRef is required; set it")
    assert result.exit_code == 1


def test_a_broken_object_leaves_the_others_their_plans(store, one_shot, worktree, write_file, manifest):
    worktree(KEY="1")
    broken = {**manifest, "metadata": {"name": "broken"}, "spec": {}}
    result = one_shot("plan", "-f", write_file(broken, manifest), "--exit-code")
    assert "  + create   app-KEY" in result.stdout
    assert result.stdout.endswith("0 unchanged, 1 without a plan.\n")
    assert result.stderr.startswith("Error: default/broken: InvalidSpec: ")
    assert result.exit_code == 1


def test_plans_nothing_for_a_suspended_object(store, one_shot, worktree, manifest):
    worktree(KEY="1")
    manifest["spec"]["suspend"] = True
    result = one_shot("plan", "--exit-code")
    assert result.stdout.startswith("SecretManagerConfig 'team/app' is suspended: nothing is planned\n")
    assert (result.exit_code, store.calls) == (0, [])


def test_reads_several_files_lists_and_stdin(store, one_shot, worktree, write_file, manifest):
    worktree(KEY="1")
    others = [{**manifest, "metadata": {"name": name, "namespace": "team"}} for name in ("one", "two")]
    listed = write_file({"apiVersion": "v1", "kind": "List", "items": others})
    result = one_shot("plan", "-f", listed, "-f", "-", input=yaml.safe_dump(manifest), catch_exceptions=False)
    assert [line.split("'")[1] for line in result.stdout.splitlines() if line.startswith("Secret")] == [
        "team/one",
        "team/two",
        "team/app",
    ]


def test_leaves_out_other_kinds_with_a_note(store, one_shot, worktree, write_file, manifest):
    worktree(KEY="1")
    file = write_file({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}, manifest)
    result = one_shot("plan", "-f", file)
    assert result.stderr == f"note: {file}: left out an object of kind Namespace\n"
    assert result.exit_code == 0


# Eight levels of ten aliases each: 10^9 values.
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 9)
)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a: [", "is no valid YAML: "),
        ("{{ template }}", "is no valid YAML: "),
        (b"\xff\xfe\x00", "is no valid YAML: "),
        ("[" * 500 + "]" * 500, "nests them more than 100 deep"),
        ("!!python/object/apply:os.system ['true']", "is no valid YAML: could not determine a constructor"),
        (BOMB, "holds more than 200000 values"),
        ("&a [*a]", "holds more than 200000 values"),
        ("just text", "holds a document that is no Kubernetes object"),
        ("", "no SecretManagerConfig in "),
        ("{kind: Secret, apiVersion: v1}", "no SecretManagerConfig in "),
        (
            "{kind: SecretManagerConfig, apiVersion: secret-management.microscaler.io/v9}",
            "apiVersion secret-management.microscaler.io/v9 is unknown; use secret-management.microscaler.io/v1",
        ),
        (
            "{kind: SecretManagerConfig, apiVersion: secret-management.microscaler.io/v1}",
            "a SecretManagerConfig has no valid metadata.name; set it",
        ),
        (
            (
                "{kind: SecretManagerConfig, apiVersion: secret-management.microscaler.io/v1, "
                "metadata: {name: a, namespace: [b]}}"
            ),
            "SecretManagerConfig a has no valid metadata.namespace; correct it",
        ),
    ],
    ids=[
        "unclosed",
        "template",
        "binary",
        "deep",
        "python-tag",
        "alias-bomb",
        "contains-itself",
        "text",
        "empty",
        "other-kind",
        "unknown-version",
        "no-name",
        "odd-namespace",
    ],
)
def test_a_file_that_is_no_manifest_is_refused_with_its_name(one_shot, tmp_path, content, told):
    file = tmp_path / "wrong.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = one_shot("plan", "-f", file)
    assert told in result.stderr
    assert str(file) in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert (result.stdout, result.exit_code) == ("", 1)


def test_the_same_object_twice_is_refused(one_shot, write_file, manifest):
    result = one_shot("plan", "-f", write_file(manifest, manifest))
    assert "SecretManagerConfig 'team/app' comes twice; remove or rename one" in result.stderr
    assert result.exit_code == 1


def test_a_file_that_is_not_there_is_told(one_shot):
    result = one_shot("plan", "-f", "/nowhere/smc.yaml")
    assert result.stderr == "Error: /nowhere/smc.yaml cannot be read: No such file or directory\n"


def test_a_source_that_is_not_there_is_told(store, one_shot, tmp_path):
    result = one_shot("plan", "--source", tmp_path / "none")
    assert result.stderr.endswith("/none is not a directory\n")
    assert (result.stdout, result.exit_code) == ("", 1)


def test_a_store_that_refuses_is_told(store, one_shot, worktree):
    worktree(KEY="1")
    store.fail("observe", PermanentError(Reason.STORE_ACCESS_DENIED, "the login may not list\x1b secrets"))
    result = one_shot("plan")
    assert result.stderr == "Error: team/app: StoreAccessDenied: the login may not list? secrets\n"
    assert result.exit_code == 1


def test_secrets_of_another_cluster_are_a_conflict_and_its_id_makes_them_ours(store, one_shot, worktree):
    worktree(KEY="1")
    store.put_by_hand("app-KEY", b"0", mark=OwnerMark("f00d", "team/app"))
    assert one_shot("plan", "--exit-code").exit_code == 3
    assert "  ~ update   app-KEY" in one_shot("plan", "--cluster-id", "f00d").stdout
    assert "  ~ update   app-KEY" in one_shot("plan", env={"CLUSTER_ID": "f00d"}).stdout


def test_a_dead_owners_secret_is_a_conflict_since_nobody_here_knows_who_lives(store, one_shot, worktree, manifest):
    manifest["spec"]["adoption"] = "Adopt"
    worktree(KEY="1")
    store.put_by_hand("app-KEY", b"0", mark=OwnerMark("standalone", "team/gone"))
    assert one_shot("plan", "--exit-code").exit_code == 3


def test_the_login_comes_from_the_environment_which_is_noted_once(store, one_shot, worktree, write_file, manifest):
    worktree(KEY="1")
    manifest["spec"]["provider"]["aws"]["auth"] = {"authType": "AccessKeys", "secretName": "aws"}
    other = {**manifest, "metadata": {"name": "other", "namespace": "team"}}
    result = one_shot("plan", "-f", write_file(manifest, other))
    assert result.stderr == (
        "note: the login to aws is taken from this process's environment, not from Secret team/aws: there is no "
        "cluster to read it from\n"
    )


def test_a_missing_login_is_told_with_where_msmctl_takes_it_from(one_shot, worktree, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    worktree(KEY="1")
    result = one_shot("plan")
    assert result.stderr.startswith("Error: team/app: CredentialsUnavailable: ")
    assert result.stderr.endswith("(for msmctl, the controller's environment is its own)\n")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"hello\x1b", "is no key that this controller knows"),
        (b"", "holds no key"),
        (b"\xff", "is not text"),
        (b"AGE-SECRET-KEY-1BROKEN", "has an age key that is damaged"),
    ],
    ids=["other", "empty", "binary", "damaged"],
)
def test_a_key_file_that_is_no_key_is_told_with_its_name_and_without_its_content(one_shot, tmp_path, content, told):
    path = tmp_path / "key"
    path.write_bytes(content)
    result = one_shot("plan", "--key-file", path)
    assert result.stderr.startswith(f"Error: key file {path}: ")
    assert told in result.stderr
    assert "hello" not in result.stderr
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["--key-file", "/nowhere"], {}, "Error: key file /nowhere cannot be read: No such file or directory\n"),
        ([], {"SOPS_AGE_KEY_FILE": "/nowhere"}, "Error: key file /nowhere cannot be read: No such file or directory\n"),
        ([], {"SOPS_AGE_KEY": "nonsense"}, "Error: SOPS_AGE_KEY: is no key that this controller knows"),
    ],
    ids=["option", "file-variable", "key-variable"],
)
def test_keys_that_cannot_be_read_are_told_by_where_they_were_named(one_shot, arguments, environment, told):
    assert one_shot("plan", *arguments, env=environment).stderr.startswith(told)
