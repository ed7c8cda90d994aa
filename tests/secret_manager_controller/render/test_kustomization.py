"""What a kustomization refers to, and what is refused before anything runs."""

import pytest

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.render import inputs as inputs_module
from secret_manager_controller.render.inputs import gather_build
from secret_manager_controller.render.kustomization import Use, references

REMOTE = [
    "https://canary.invalid/x.yaml",
    "http://127.0.0.1:1/x.yaml",
    "HTTPS://canary.invalid/x",
    "ssh://git@canary.invalid/x",
    "git::https://canary.invalid/x",
    "git@canary.invalid:team/x",
    "file:///etc/passwd",
    "github.com/team/repository",
    "GitHub.com/team/repository//base?ref=v1",
    "gh:team/repository",
    "canary.invalid/team/repository.git",
    "canary.invalid/team/repository.git/base",
    "dev.azure.com/team/_git/repository",
    "canary.invalid/team/repository?ref=main",
    "base//inner",
    "/etc/passwd",
    "~/x",
    "-x",
    "a\\b",
]
FIELDS = {
    "resources": "resources: [{}]",
    "bases": "bases: [{}]",
    "components": "components: [{}]",
    "crds": "crds: [{}]",
    "configurations": "configurations: [{}]",
    "openapi": "openapi: {{path: {}}}",
    "patches": "patches: [{{path: {}}}]",
    "patchesJson6902": "patchesJson6902: [{{path: {}, target: {{kind: Secret}}}}]",
    "patchesStrategicMerge": "patchesStrategicMerge: [{}]",
    "replacements": "replacements: [{{path: {}}}]",
    "configMapGenerator.files": "configMapGenerator: [{{name: a, files: [{}]}}]",
    "configMapGenerator.envs": "configMapGenerator: [{{name: a, envs: [{}]}}]",
    "secretGenerator.files": "secretGenerator: [{{name: a, files: [{}]}}]",
    "secretGenerator.key": "secretGenerator: [{{name: a, files: ['key={}']}}]",
    "secretGenerator.env": "secretGenerator: [{{name: a, env: {}}}]",
}


def read(text, path="o/kustomization.yaml"):
    return references(text.encode(), path=path)


def refused(text):
    with pytest.raises(PermanentError) as caught:
        read(text)
    assert caught.value.reason is Reason.BUILD_FAILED
    assert caught.value.message.startswith("o/kustomization.yaml: ")
    return caught.value.message


def test_every_field_that_refers_to_files_is_followed():
    merged = [line.format(f"f{number}") for number, line in enumerate(FIELDS.values()) if number < 10]
    merged += ["configMapGenerator: [{name: a, files: [f10], envs: [f11]}]"]
    merged += ["secretGenerator: [{name: a, files: [f12, k=f13], envs: [f14], env: f15, literals: [a=b]}]"]
    found = read("\n".join(merged))
    assert [reference.path for reference in found] == [f"o/f{number}" for number in range(16)]
    assert [reference.use is Use.INPUT for reference in found] == [number >= 10 for number in range(16)]


def test_bases_may_be_outside_the_path_but_not_outside_the_source():
    assert [reference.path for reference in read("resources: [../base, ./here.yaml]")] == ["base", "o/here.yaml"]
    assert "'../../base' leads out of the source" in refused("resources: [../../base]")


@pytest.mark.parametrize("text", REMOTE)
@pytest.mark.parametrize("field", FIELDS)
def test_what_may_be_remote_is_refused_in_every_field(field, text):
    if field.endswith(".files") and "=" in text:
        text = f"key={text}"  # What stands before the first `=` is a key.
    quoted = text if field == "secretGenerator.key" else f"'{text}'"
    assert "remote resource or not a plain path" in refused(FIELDS[field].format(quoted))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("helmCharts: [{name: x}]", "helmCharts is not supported: no Helm chart is inflated here"),
        ("helmChartInflationGenerator: [{chartName: x}]", "helmChartInflationGenerator is not supported"),
        ("helmGlobals: {chartHome: x}", "helmGlobals is not supported"),
        ("generators: [x.yaml]", "generators is not supported: no plugin or function is run here"),
        ("transformers: [x.yaml]", "transformers is not supported"),
        ("validators: [x.yaml]", "validators is not supported"),
        ("Resources: [x.yaml]", "Resources is not a field of a kustomization that this controller knows"),
        ("new: 1", "new is not a field of a kustomization"),
        ("patches: [{Path: x}]", "patches[0].Path is not a field that this controller knows"),
        ("secretGenerator: [{name: a, FILES: [x]}]", "secretGenerator[0].FILES is not a field"),
        ("openapi: {PATH: x}", "openapi.PATH is not a field"),
        ("resources: x", "resources is not a list"),
        ("resources: [1]", "resources[0] is not a path"),
        ("resources: ['']", "resources[0] is not a path"),
        ("patches: [x]", "patches[0] is not a mapping"),
        ("secretGenerator: [{files: {a: b}}]", "secretGenerator[0].files is not a list"),
        ("secretGenerator: [{files: [{a: b}]}]", "secretGenerator[0].files[0] is not a path"),
        ("a: &a [x]\nb: *a", "it has an anchor or alias"),
        ("a: 1\n---\nb: 2", "it has 2 YAML documents, and must have one"),
        ("a: [", "it is not YAML"),
    ],
)
def test_what_is_not_known_is_refused_by_name(text, told):
    assert told in refused(text)


def test_what_refers_to_nothing_is_passed_over():
    text = """
        apiVersion: kustomize.config.k8s.io/v1beta1
        kind: Kustomization
        namePrefix: a-
        generators: []
        resources: null
        patches: [{patch: "- op: remove\\n  path: /data/a", target: {kind: Secret}}]
        patchesStrategicMerge: ["apiVersion: v1\\nkind: Secret", "{kind: Secret}"]
        replacements: [{source: {kind: Secret}, targets: []}]
        openapi: {version: v1.20.4}
        """
    assert read(text) == ()


# Over the whole source.


def gathered(tree, path="o"):
    return sorted(gather_build(tree, path).files)


def failed(tree, path="o", reason=Reason.BUILD_FAILED):
    with pytest.raises(PermanentError) as caught:
        gather_build(tree, path)
    assert caught.value.reason is reason
    return caught.value.message


def test_only_what_is_referred_to_is_read(tree_of):
    tree = tree_of(
        {
            "o/kustomization.yaml": b"resources: [../b, s.yaml]\ncomponents: [../c]\n",
            "o/s.yaml": b"x",
            "o/other.yaml": b"not read",
            "b/Kustomization": b"resources: [inner/s.yaml]\n",
            "b/inner/s.yaml": b"x",
            "c/kustomization.yml": b"kind: Component\npatches: [{path: p.yaml}]\n",
            "c/p.yaml": b"x",
            "unrelated/x": b"not read",
        }
    )
    assert gathered(tree) == [
        "b/Kustomization",
        "b/inner/s.yaml",
        "c/kustomization.yml",
        "c/p.yaml",
        "o/kustomization.yaml",
        "o/s.yaml",
    ]


def test_the_root_itself_may_be_built(tree_of):
    assert gathered(tree_of({"kustomization.yaml": b"resources: [a/s.yaml]\n", "a/s.yaml": b"x"}), ".") == [
        "a/s.yaml",
        "kustomization.yaml",
    ]


def test_a_base_may_be_used_twice_and_never_by_itself(tree_of):
    files = {
        "o/kustomization.yaml": b"resources: [../a, ../b]\n",
        "a/kustomization.yaml": b"resources: [../c]\n",
        "b/kustomization.yaml": b"resources: [../c]\n",
        "c/kustomization.yaml": b"resources: [s.yaml]\n",
        "c/s.yaml": b"x",
    }
    assert len(gathered(tree_of(files))) == 5
    files["c/kustomization.yaml"] = b"resources: [../a]\n"
    assert failed(tree_of(files)) == "c/kustomization.yaml: resources[0] refers to 'a', which refers back to it"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"o/x": b""}, "'o' has no kustomization.yaml; it must have one kustomization file"),
        (
            {"o/kustomization.yaml": b"", "o/Kustomization": b""},
            "'o' has kustomization.yaml and Kustomization; it must have one",
        ),
        ({"o/kustomization.yaml": b"resources: [none.yaml]"}, "resources[0]: 'o/none.yaml' is not in the source"),
        ({"o/kustomization.yaml": b"components: [none]"}, "components[0]: 'o/none' is not a directory in the source"),
        (
            {"o/kustomization.yaml": b"patches: [{path: d}]", "o/d/x": b""},
            "patches[0].path: 'o/d' is not a file in the source",
        ),
        (
            {"o/kustomization.yaml": b"patches: [{path: ../p.yaml}]", "p.yaml": b""},
            "'p.yaml' is a file outside the kustomization's own directory",
        ),
        ({"o/kustomization.yaml": b"resources: [d]", "o/d/x": b""}, "'o/d' has no kustomization.yaml"),
    ],
)
def test_what_is_not_there_is_told_with_its_place(tree_of, files, told):
    assert told in failed(tree_of(files))


def test_a_path_that_is_not_there_is_told(tree_of):
    told = failed(tree_of({"a/x": b""}), "none", Reason.PATH_NOT_FOUND)
    assert told == "kustomizePath 'none' is not a directory in the source; correct spec.secrets.kustomizePath"


def test_links_are_refused(tree_of):
    tree = tree_of({"o/kustomization.yaml": b"resources: [s.yaml]", "x": b""})
    (tree.root / "o" / "s.yaml").symlink_to("../x")
    assert "symbolic link" in failed(tree, reason=Reason.INVALID_ARCHIVE)


@pytest.mark.parametrize(("name", "value"), [("MAX_BUILD_FILES", 2), ("MAX_BUILD_BYTES", 60), ("MAX_BUILD_DEPTH", 1)])
def test_a_build_is_bounded(tree_of, monkeypatch, name, value):
    tree = tree_of(
        {
            "o/kustomization.yaml": b"resources: [../b, s.yaml]\n",
            "o/s.yaml": b"x" * 30,
            "b/kustomization.yaml": b"resources: [s.yaml]\n",
            "b/s.yaml": b"x" * 30,
        }
    )
    assert len(gathered(tree)) == 4
    monkeypatch.setattr(inputs_module, name, value)
    assert "more than" in failed(tree)


def test_the_digest_covers_paths_and_contents(tree_of, tmp_path):
    def parts(files):
        return gather_build(tree_of({"o/kustomization.yaml": b"resources: [s.yaml]\n"} | files), "o").parts

    first = parts({"o/s.yaml": b"x"})
    assert parts({"o/s.yaml": b"x", "o/other": b"y"}) == first
    assert parts({"o/s.yaml": b"z"}) != first
