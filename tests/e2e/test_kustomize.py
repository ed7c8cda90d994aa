"""Kustomize mode by the real controller process: overlays of encrypted files, and builds that go wrong for one object only."""

import os

import pytest

from secret_manager_controller.testing.tenants import conditions

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("controller")]

OVERLAY = "overlays/dev"
SECRET = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\nstringData:\n  PASSWORD: {}\n"
ENCRYPTED_DATA = ("--encrypted-regex", "^(data|stringData)$")


@pytest.fixture
def files(encrypt, example_recipient):
    """Return a function that makes an overlay over an encrypted base, with an encrypted generator's input."""

    def make(password="one", token="two"):
        return {
            f"{OVERLAY}/kustomization.yaml": "resources: [../../base]\nnamePrefix: dev-\n"
            "secretGenerator: [{name: tokens, envs: [tokens.env]}]\n",
            f"{OVERLAY}/tokens.env": encrypt(f"TOKEN={token}\n", example_recipient),
            "base/kustomization.yaml": "resources: [secret.yaml]\n",
            "base/secret.yaml": encrypt(SECRET.format(password), example_recipient, kind="yaml"),
        }

    return make


def apply(tenant, **changes):
    tenant.apply(secrets={"environment": "dev", "kustomizePath": OVERLAY, "prefix": tenant.namespace}, **changes)


def test_an_overlay_is_built_and_one_change_is_one_write(tenant, files):
    first = files()
    tenant.commit(first)
    apply(tenant)
    tenant.ready()
    assert tenant.values() == {"PASSWORD": b"one", "TOKEN": b"two"}
    tenant.applied(tenant.commit(first | {f"{OVERLAY}/tokens.env": files(token="three")[f"{OVERLAY}/tokens.env"]}))
    assert tenant.values() == {"PASSWORD": b"one", "TOKEN": b"three"}
    assert (tenant.versions("PASSWORD"), tenant.versions("TOKEN")) == (1, 2)


def test_a_commit_that_touches_nothing_of_it_calls_no_store(tenant, files):
    first = files()
    tenant.commit(first)
    apply(tenant)
    tenant.ready()
    tenant.stack.aws.clear_calls()
    tenant.applied(tenant.commit(first | {"elsewhere/file": "new"}))
    assert tenant.calls() == []


def test_a_value_changed_by_hand_is_put_back(tenant, files):
    tenant.commit(files())
    apply(tenant)
    tenant.ready()
    tenant.stack.aws.put_by_hand(tenant.name("TOKEN"), b"by hand")
    tenant.reconcile()
    assert tenant.values()["TOKEN"] == b"two"


@pytest.mark.parametrize(
    ("kustomization", "reason", "told"),
    [
        ("resources: ['https://canary.invalid/x']\n", "BuildFailed", "is a remote resource or not a plain path"),
        ("helmCharts: [{name: x}]\n", "BuildFailed", "helmCharts is not supported"),
        ("resources: [../../base]\npatches:\n- patch: |\n    kind: Secret\n    apiVersion: v1\n    metadata: {name: none}\n",
         "BuildFailed", "for an object that is not there"),
        ("resources: [../../none]\n", "BuildFailed", "'none' is not in the source"),
        ("namePrefix: a\n", "EmptySource", "has no Secret; nothing is deleted"),
        ("resources: [../../base]\nsecretGenerator: [{name: a, literals: [PASSWORD=x]}]\n",
         "NameCollision", "key 'PASSWORD' is in Secret"),
    ],
    ids=["remote", "helm", "patch", "missing", "empty", "collision"],
)  # fmt: skip
def test_a_build_that_goes_wrong_deletes_nothing_and_stays_alone(make_tenant, files, kustomization, reason, told):
    good, bad = make_tenant("good"), make_tenant("bad")
    for tenant in (good, bad):
        tenant.commit(files())
        apply(tenant, prune=True)
        tenant.ready()
    bad.commit(files() | {f"{OVERLAY}/kustomization.yaml": kustomization})
    status = bad.ready(reason=reason)
    assert told in status["conditions"][0]["message"]
    assert "Stalled" in conditions(status)
    assert bad.values() == {"PASSWORD": b"one", "TOKEN": b"two"}
    good.applied(good.commit(files(password="new")))
    assert good.values()["PASSWORD"] == b"new"


@pytest.fixture
def program(kustomize_binary, tmp_path):
    """Return a kustomize that hangs where the kustomization says so; no real one was ever seen to."""
    path = tmp_path / "kustomize"
    path.write_text(
        f"#!/bin/sh\nread first < {OVERLAY}/kustomization.yaml\n"
        f'[ "$first" = "# hang" ] && while :; do :; done\nexec {kustomize_binary} "$@"\n'
    )
    path.chmod(0o700)
    return path


def test_a_build_without_end_is_killed_and_the_others_go_on(stack, controller, make_tenant, files, program):
    """One hangs, one eats memory; the same replica builds another one, and the two once they are mended."""
    controller.stop()
    hanging, hungry, good = make_tenant("hanging"), make_tenant("hungry"), make_tenant("good")
    large = {f"{OVERLAY}/{name}": os.urandom(3 << 20) for name in "abcde"}
    generator = f"secretGenerator: [{{name: g, files: [{', '.join('abcde')}]}}]\n"
    bad = {
        hanging: {f"{OVERLAY}/kustomization.yaml": "# hang\nresources: [../../base]\n"},
        hungry: {f"{OVERLAY}/kustomization.yaml": generator, **large},
    }
    told = {hanging: "did not end within 5 seconds and was killed", hungry: "needs more memory than a build may use"}
    limits = {"KUSTOMIZE_TIMEOUT_SECONDS": "5", "KUSTOMIZE_MEMORY_MIB": "128"}
    with stack.controller(KUSTOMIZE_BINARY=str(program), **limits) as running:
        for tenant in (hanging, hungry, good):
            tenant.commit(files())
            apply(tenant, prune=True)
            tenant.ready()
        for tenant, changed in bad.items():
            tenant.commit(files() | changed)
        good.applied(good.commit(files(password="new")))
        for tenant in bad:
            status = tenant.ready(reason="BuildFailed")
            assert told[tenant] in status["conditions"][0]["message"]
            assert tenant.values() == {"PASSWORD": b"one", "TOKEN": b"two"}
        assert good.values()["PASSWORD"] == b"new"
        for tenant in bad:
            tenant.applied(tenant.commit(files(password="mended")))
            assert tenant.values()["PASSWORD"] == b"mended"
        assert running.process.poll() is None


def test_a_missing_program_is_told_and_profile_files_go_on(stack, controller, make_tenant, files):
    controller.stop()
    with stack.controller(KUSTOMIZE_BINARY="/nonexistent/kustomize"):
        built, plain = make_tenant("built"), make_tenant("plain")
        built.commit(files())
        apply(built)
        status = built.ready(reason="BuildFailed")
        assert "install kustomize, or set KUSTOMIZE_BINARY" in status["conditions"][0]["message"]
        assert "Reconciling" in conditions(status)
        plain.commit(A="1")
        plain.apply()
        plain.ready()
