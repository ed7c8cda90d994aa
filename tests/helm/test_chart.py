"""The chart: linted and rendered by the real helm, checked against the real API server, and its values against the schema."""

import functools
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from secret_manager_controller.crd import KINDS, custom_resource_definition

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "secret-manager-controller"
NAMESPACE = "chart"
# Of objects that the chart hands on as they are, Kubernetes itself knows the fields.
OPEN = {"affinity", "tolerations", "topologySpreadConstraints", "ingressFrom", "extra", "extraEnv", "claims", "global"}


@pytest.fixture(scope="session")
def helm(tool):
    """Return a function that runs helm."""

    def run(command, *options, ok=True):
        arguments = [tool("helm"), *command.split(), CHART, *options]
        ran = subprocess.run([*arguments, "--kube-version", "1.31.0"], capture_output=True, text=True, check=False)
        assert (ran.returncode == 0) == ok, ran.stdout + ran.stderr
        return ran.stdout if ok else ran.stdout + ran.stderr

    return run


@pytest.fixture(scope="session")
def render(render_chart):
    """Return a function that renders the chart with values, as `--set` takes them."""
    return functools.partial(render_chart, NAMESPACE)


def of_kind(manifests, kind):
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def test_helm_finds_nothing_to_complain_about(helm):
    assert "0 chart(s) failed" in helm("lint --strict")


@pytest.mark.parametrize(
    ("value", "path", "told"),
    [
        ("replicas=many", "'/replicas'", "want integer"),
        ("replicas=0", "'/replicas'", "minimum"),
        ("replica=3", "''", "additional properties 'replica' not allowed"),
        ("sharding.shard=3", "'/sharding'", "additional properties 'shard' not allowed"),
        ("tenancy.mode=open", "'/tenancy/mode'", "one of"),
        ("identity.aws.roleArn=role", "'/identity/aws/roleArn'", "does not match pattern"),
        ("networkPolicy.egress.stores.ports[0]=https", "'/networkPolicy/egress/stores/ports/0'", "want integer"),
        ("podAnnotations.a=1", "'/podAnnotations/a'", "want string"),
        ("serviceMonitor.enabled=maybe", "'/serviceMonitor/enabled'", "want boolean"),
        ("dashboards.folder=ours", "'/dashboards'", "additional properties 'folder' not allowed"),
        ("image.digest=latest", "'/image/digest'", "does not match pattern"),
    ],
)
def test_a_wrong_value_is_refused_with_the_path_of_its_key(helm, value, path, told):
    output = helm("template smc", "--set", value, ok=False)
    assert f"at {path}" in output
    assert told in output


def objects(schema, name=""):
    """Yield the name and schema of every object."""
    if schema.get("type") == "object":
        yield name, schema
        for key, inner in schema.get("properties", {}).items():
            yield from objects(inner, key)


def test_the_schema_knows_every_default_value_and_closes_every_object():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(value, inner, path):
        if isinstance(value, dict) and "properties" in inner:
            known = inner["properties"].keys() - {"global", "claims"}
            assert value.keys() == known, path
            for key in value:
                compare(value[key], inner["properties"][key], f"{path}.{key}")

    compare(values, schema, "")
    for name, inner in objects(schema):
        if name not in OPEN:
            assert inner.get("additionalProperties") is not None, name


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_crds_are_templates_that_upgrade_and_stay(render, kind):
    crd = custom_resource_definition(kind)
    (rendered,) = [m for m in render() if m["metadata"]["name"] == crd["metadata"]["name"]]
    assert rendered["spec"] == crd["spec"]
    assert rendered["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert not [m for m in render(crds__install="false") if m["kind"] == "CustomResourceDefinition"]


def test_the_install_manifest_is_the_rendered_chart(tool):
    spec = importlib.util.spec_from_file_location("install_manifest", ROOT / "tools" / "install_manifest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    committed = (ROOT / "deploy" / "install.yaml").read_text()
    assert committed == module.manifest(tool("helm")), "out of date: run make generate"
    assert of_kind(yaml.safe_load_all(committed), "Namespace")["metadata"]["name"] == "microscaler-system"


def test_the_pod_has_time_to_hand_over_and_names_itself(render):
    pod = of_kind(render(shutdownGraceSeconds=30), "Deployment")["spec"]["template"]["spec"]
    environment = {one["name"]: one for one in pod["containers"][0]["env"]}
    assert pod["terminationGracePeriodSeconds"] == 55
    assert environment["SHUTDOWN_GRACE_SECONDS"]["value"] == "30"
    assert environment["POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"


@pytest.mark.parametrize(
    "values",
    [{}, {"tenancy__mode": "shared", "logLevel": "debug", "gitHosts": "{git.example,git.internal}"}],
    ids=["default", "shared"],
)
def test_the_controller_can_read_the_settings_that_the_chart_sets(render, values):
    from secret_manager_controller.controller.settings import Settings

    container = of_kind(render(**values), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    environment = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    settings = Settings.from_environment(environment | {"POD_NAME": "smc-0"})
    assert settings.tenancy_mode == values.get("tenancy__mode", "isolated")
    assert settings.git_hosts == (("git.example", "git.internal") if "gitHosts" in values else ())
    assert settings.sharding.shards == 32


def test_each_clouds_identity_is_annotated_and_its_token_mounted(render):
    manifests = render(
        identity__aws__roleArn="arn:aws:iam::123456789012:role/smc",
        identity__aws__projectedToken="true",
        identity__azure__clientId="c",
        identity__azure__tenantId="t",
        identity__azure__projectedToken="true",
        identity__gcp__workloadIdentityProvider="//iam.googleapis.com/projects/1/locations/global/p",
        identity__gcp__serviceAccountEmail="smc@p.iam.gserviceaccount.com",
    )
    assert of_kind(manifests, "ServiceAccount")["metadata"]["annotations"] == {
        "eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/smc",
        "iam.gke.io/gcp-service-account": "smc@p.iam.gserviceaccount.com",
        "azure.workload.identity/client-id": "c",
        "azure.workload.identity/tenant-id": "t",
    }
    pod = of_kind(manifests, "Deployment")["spec"]["template"]["spec"]
    audiences = {
        volume["name"]: volume["projected"]["sources"][0]["serviceAccountToken"]["audience"]
        for volume in pod["volumes"]
        if "projected" in volume
    }
    assert audiences == {
        "aws-token": "sts.amazonaws.com",
        "azure-token": "api://AzureADTokenExchange",
        "gcp-token": "https://iam.googleapis.com/projects/1/locations/global/p",
    }
    files = {
        one["name"]: one["value"]
        for one in pod["containers"][0]["env"]
        if one["name"].endswith(("FILE", "CREDENTIALS"))
    }
    mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert {str(Path(path).parent) for path in files.values()} <= mounts
    config = json.loads(of_kind(manifests, "ConfigMap")["data"]["credentials.json"])
    assert config["credential_source"]["file"] in {f"{mount}/token" for mount in mounts}


def test_a_pod_monitor_finds_the_metrics_port(render):
    manifests = render(podMonitor__enabled="true", podMonitor__labels__release="prometheus")
    monitor = of_kind(manifests, "PodMonitor")
    template = of_kind(manifests, "Deployment")["spec"]["template"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in template["spec"]["containers"][0]["ports"]}


def test_a_service_monitor_finds_the_service_and_its_port(render):
    manifests = render(serviceMonitor__enabled="true", serviceMonitor__labels__release="prometheus")
    monitor, service = of_kind(manifests, "ServiceMonitor"), of_kind(manifests, "Service")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_dashboards_are_a_config_map_that_grafana_looks_for(render, tmp_path):
    copied = shutil.copytree(CHART, tmp_path / "chart")
    dashboards = copied / "files" / "dashboards"
    dashboards.mkdir(exist_ok=True)
    (dashboards / "of-a-test.json").write_text('{"title": "{{ a template of Grafana }}"}')
    found = of_kind(render(chart=copied, dashboards__enabled="true"), "ConfigMap")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["data"].keys() == {path.name for path in dashboards.glob("*.json")}
    assert found["data"]["of-a-test.json"] == (dashboards / "of-a-test.json").read_text()
    assert not [each for each in render(chart=copied) if each["kind"] == "ConfigMap"]
    shutil.rmtree(dashboards)
    assert not [each for each in render(chart=copied, dashboards__enabled="true") if each["kind"] == "ConfigMap"]


PATHS = {
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Pod": "/api/v1/namespaces/{}/pods",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
}


@pytest.fixture(scope="module")
def restricted(control_plane):
    """Make the namespace, under Pod Security's strictest standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"metadata": {"name": NAMESPACE, "labels": labels}}
    assert control_plane.request("POST", "/api/v1/namespaces", body=body)[0] == 201
    account = {"metadata": {"name": "secret-manager-controller"}}
    control_plane.request("POST", PATHS["ServiceAccount"].format(NAMESPACE), body=account)
    control_plane.request("POST", PATHS["ServiceAccount"].format(NAMESPACE), body={"metadata": {"name": "default"}})
    return control_plane


@pytest.mark.parametrize("values", [{}, {"tenancy__mode": "shared", "clusterId": "blue"}], ids=["default", "shared"])
def test_the_api_server_takes_every_manifest_strictly(restricted, render, values):
    for manifest in render(**values):
        name = manifest["metadata"]["name"]
        path = f"{PATHS[manifest['kind']].format(NAMESPACE)}/{name}"
        query = "?dryRun=All&fieldManager=helm&fieldValidation=Strict&force=true"
        status, answer = restricted.request(
            "PATCH", path + query, body=manifest, content_type="application/apply-patch+yaml"
        )
        assert status in (200, 201), (manifest["kind"], answer)


def test_pod_security_lets_the_pods_in_as_restricted(restricted, render):
    manifests = render()
    template = of_kind(manifests, "Deployment")["spec"]["template"]
    template["metadata"]["name"] = "replica"
    pods = [{"apiVersion": "v1", "kind": "Pod", **template}, of_kind(manifests, "Pod")]
    for pod in pods:
        path = PATHS["Pod"].format(NAMESPACE) + "?dryRun=All&fieldValidation=Strict"
        status, answer = restricted.request("POST", path, body=pod)
        assert status == 201, answer
    pods[0]["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    status, answer = restricted.request("POST", PATHS["Pod"].format(NAMESPACE) + "?dryRun=All", body=pods[0])
    assert (status, "restricted" in answer["message"]) == (403, True)


def test_the_alerts_are_a_rule_of_their_own_where_they_are_wanted(render):
    assert not [manifest for manifest in render() if manifest["kind"] == "PrometheusRule"]
    rule = of_kind(render(prometheusRule__enabled="true"), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
