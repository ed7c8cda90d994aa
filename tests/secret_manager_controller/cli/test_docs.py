"""docs/msmctl.md: every example is run, every command line is parsed, every list is complete."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from secret_manager_controller.cli.errors import ExitCode
from secret_manager_controller.cli.main import VERBS, cli
from secret_manager_controller.model.observed import OwnerMark

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "msmctl.md").read_text()


OLD = """\
apiVersion: secret-management.microscaler.io/v1beta1
kind: SecretManagerConfig
metadata: {name: app, namespace: team}
spec:
  sourceRef: {name: services}
  gcp: {projectId: my-project, auth: {type: WorkloadIdentity}}
  secrets: {environment: dev}
"""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def runs():
    """Yield each command of the page whose output is shown, with that output."""
    for block in blocks("console"):
        command, _, output = block.partition("\n")
        yield pytest.param(shlex.split(command.removeprefix("$ msmctl ")), output, id=command)


def command_lines():
    """Yield each command line of the page's scripts."""
    for block in blocks("bash"):
        for line in block.splitlines():
            for part in re.findall(r"msmctl (.+?)(?:\s*(?:;|&&|\|).*)?$", line):
                yield pytest.param(shlex.split(re.sub(r"\$\(.*?\)(?=\")", "x", part).replace("$name", "x")), id=part)


@pytest.fixture
def world(api, clock, replicas, store, worktree, reference_object, tmp_path, monkeypatch):
    """Make a cluster, a store and a directory as the page has them."""
    reference_object["metadata"]["creationTimestamp"] = "2023-12-02T10:00:00Z"
    reference_object["status"]["lastAppliedRevision"] = "main@sha1:6f1c2a9be07d4c1e8a5b3f2d1c0e9f8a7b6c5d4e"
    for name in ("idam-prd-secrets", "idam-dev-secrets"):
        reference_object["metadata"]["name"] = name
        api.put(reference_object)
    grants = {"namespaces": {"names": ["pricewhisperer"]}, "sources": [{"namespace": "flux-system", "name": "x"}]}
    grants["sources"][0]["name"] = reference_object["spec"]["sourceRef"]["name"]
    api.groups = {"source.toolkit.fluxcd.io"}
    api.readable = {("pricewhisperer", name) for name in ("sops-private-key", "sops-gpg-key", "gpg-key")}
    api.policies = [{"metadata": {"name": "pricewhisperer"}, "spec": grants}]
    replicas({"smc-7d9f-kx2lp": [0, 1], "smc-7d9f-vq8rn": [2, 3]})
    clock.at(25, lambda: api.put(reference_object))
    (manifest,) = (text for text in blocks("yaml") if "kind: SecretManagerConfig" in text)
    monkeypatch.chdir(worktree(API_KEY="new", DATABASE_URL="1", SHARED="2", SAME="3"))
    Path("smc.yaml").write_text(manifest)
    Path("old.yaml").write_text(OLD)
    me = OwnerMark("standalone", "team/app")
    for name, value in (("API_KEY", b"old"), ("SAME", b"3"), ("OLD_TOKEN", b"4")):
        store.put_by_hand(f"app-{name}", value, mark=me)
    store.put_by_hand("app-SHARED", b"5", mark=OwnerMark("standalone", "team/other"))
    for name in ("CLUSTER_ID", "POD_NAMESPACE", "SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("arguments", "output"), list(runs()))
def test_an_example_prints_what_the_page_shows(world, msmctl, arguments, output):
    assert msmctl(*arguments).stdout == output


@pytest.mark.parametrize("arguments", list(command_lines()))
def test_a_scripts_command_line_is_one(arguments):
    verb, *options = arguments
    command = cli.get_command(None, verb)
    with command.make_context(verb, options) as context:
        assert context.params


def test_every_verb_has_its_section_and_an_example():
    shown = {run.values[0][0] for run in runs()}
    assert shown == set(VERBS)
    assert set(re.findall(r"^## msmctl (\w+)$", PAGE, re.MULTILINE)) == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_verb_is_on_the_page(verb):
    command = cli.get_command(None, verb)
    options = {max(parameter.opts, key=len) for parameter in command.params}
    assert {option for option in options if option not in PAGE} == {"--file", "--output"} & options


def test_every_exit_code_is_on_the_page():
    table = PAGE[PAGE.index("| exit code |") : PAGE.index("2 means what")]
    told = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in row.split(",")}
    assert told == set(ExitCode)


def test_the_role_on_the_page_is_the_one_that_is_tested():
    (role,) = (yaml.safe_load(text) for text in blocks("yaml") if "kind: ClusterRole" in text)
    assert [rule["verbs"] for rule in role["rules"]] == [["get", "list", "patch"], ["get"]]
