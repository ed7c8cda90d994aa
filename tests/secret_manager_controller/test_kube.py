"""The API client against a small server: what it sends, and what it makes of any answer."""

import json
import ssl
from types import SimpleNamespace

import pytest
from aiohttp import web
from kubernetes.client import Configuration

from secret_manager_controller import kube as kube_module
from secret_manager_controller.controller.main import check_direct
from secret_manager_controller.kube import (
    SECRET_MANAGER_CONFIGS,
    ApiServer,
    KubeClient,
    KubeConfigError,
    KubeError,
)
from secret_manager_controller.testing import certificates

PATH = SECRET_MANAGER_CONFIGS.url("team-a", "idam")


@pytest.fixture
async def api():
    """Serve `answers` (status, body) one after the other, and note the requests."""

    api = SimpleNamespace(answers=[], requests=[])

    async def handler(request):
        api.requests.append((request.method, request.path_qs, dict(request.headers), await request.text()))
        answer = api.answers.pop(0)
        if callable(answer):
            return await answer(request)
        status, body = answer
        if isinstance(body, str):
            return web.Response(status=status, text=body)
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield api
    await runner.cleanup()


@pytest.fixture
async def client(api):
    configuration = Configuration()
    configuration.host = api.url
    configuration.api_key = {"authorization": "Bearer t0ken"}
    async with KubeClient(ApiServer(configuration), user_agent="tests/1") as running:
        yield running


async def test_a_request_says_who_we_are(api, client):
    api.answers.append((200, {"kind": "X"}))
    assert await client.get(PATH) == {"kind": "X"}
    ((method, path, headers, body),) = api.requests
    assert (method, path, body) == ("GET", PATH, "")
    assert (headers["User-Agent"], headers["Authorization"]) == ("tests/1", "Bearer t0ken")


@pytest.fixture
def kubeconfig(tmp_path, monkeypatch):
    """Return a function that writes a kubeconfig with fields of its cluster and loads it."""
    monkeypatch.setenv("HTTPS_PROXY", "http://stores.invalid:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://stores.invalid:3128")

    def load(**cluster):
        document = {
            "clusters": [{"name": "c", "cluster": {key.replace("_", "-"): value for key, value in cluster.items()}}],
            "users": [{"name": "u", "user": {"token": "t0ken"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = tmp_path / "config"
        path.write_text(json.dumps(document))
        return ApiServer.load(kubeconfig=str(path))

    return load


async def test_a_proxy_of_the_kubeconfig_is_used_and_none_of_the_environment(api, kubeconfig):
    api.answers += [(200, {"kind": "X"}), (200, {"kind": "Y"})]
    async with KubeClient(kubeconfig(server="http://cluster.invalid", proxy_url=api.url), user_agent="tests/1") as kube:
        assert await kube.get(PATH) == {"kind": "X"}
    assert api.requests[0][2]["Host"] == "cluster.invalid"
    async with KubeClient(kubeconfig(server=api.url), user_agent="tests/1") as kube:
        assert await kube.get(PATH) == {"kind": "Y"}


def test_a_proxy_that_cannot_be_used_is_told(kubeconfig):
    with pytest.raises(KubeConfigError, match=r"the proxy-url .* only http:// and https:// proxies can be used"):
        kubeconfig(server="https://cluster.invalid", proxy_url="socks5://127.0.0.1:1080")


@pytest.mark.parametrize(
    ("address", "cluster", "answers"),
    [
        pytest.param("localhost", {"tls_server_name": "127.0.0.1"}, True, id="its-name"),
        pytest.param("localhost", {}, False, id="the-address-is-another"),
        pytest.param("127.0.0.1", {"tls_server_name": "another"}, False, id="another-name"),
    ],
)
async def test_the_certificate_has_to_be_for_the_kubeconfigs_server_name(
    tmp_path, kubeconfig, address, cluster, answers
):
    certificates.write_serving_certificate(tmp_path, address="127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    app = web.Application()

    async def answer(_):
        return web.json_response({"kind": "X"})

    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://{address}:{runner.addresses[0][1]}"
    server = kubeconfig(server=url, certificate_authority=str(tmp_path / "ca.crt"), **cluster)
    async with KubeClient(server, user_agent="tests/1") as kube:
        if answers:
            assert await kube.get(PATH) == {"kind": "X"}
        else:
            with pytest.raises(KubeError, match="ClientConnectorCertificateError"):
                await kube.get(PATH)
    await runner.cleanup()


@pytest.mark.parametrize("field", ["proxy-url", "tls-server-name"])
def test_the_controller_refuses_a_way_that_its_watches_cannot_take(kubeconfig, field):
    server = kubeconfig(server="https://cluster.invalid", **{field.replace("-", "_"): "http://proxy.invalid"})
    with pytest.raises(KubeConfigError, match=f"the kubeconfig has a {field}, which msmctl alone can use"):
        check_direct(server)


async def test_an_absent_object_is_none(api, client):
    api.answers.append((404, {"kind": "Status", "message": "not found"}))
    assert await client.get(PATH) is None


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        pytest.param((409, {"message": "it has been modified"}), 409, "it has been modified", id="status"),
        pytest.param((404, "404 page not found\n"), 404, "Not Found", id="a kind that is not served"),
        pytest.param((502, "<html>Bad gateway</html>"), 502, "Bad Gateway", id="a proxy's page"),
        pytest.param((403, {"message": "x" * 1000}), 403, "x" * 255 + "…", id="long"),
        pytest.param((500, {"message": None}), 500, "Internal Server Error", id="no message"),
        pytest.param((200, "<html>Log in</html>"), 0, "answered something that is no JSON object", id="no JSON"),
        pytest.param((200, []), 0, "answered something that is no JSON object", id="a list"),
    ],
)
async def test_a_refusal_has_the_servers_words_or_its_status(api, client, answer, status, message):
    api.answers.append(answer)
    with pytest.raises(KubeError) as refused:
        await client.merge_patch(PATH, {})
    assert refused.value.status == status
    assert message in refused.value.message


async def test_a_connection_that_breaks_is_no_answer(api, client):
    async def broken(request):
        request.transport.close()
        return web.Response()

    api.answers += [broken, broken]  # aiohttp tries a GET once more where a connection was used before.
    with pytest.raises(KubeError, match="did not answer") as refused:
        await client.get(PATH)
    assert refused.value.status == 0


async def test_a_delete_names_what_it_was_meant_for(api, client):
    api.answers.append((200, {}))
    await client.delete(PATH, uid="u1", resource_version="7")
    assert '"preconditions": {"uid": "u1", "resourceVersion": "7"}' in api.requests[0][3]


async def test_metadata_is_listed_page_by_page(api, client, monkeypatch):
    monkeypatch.setattr(kube_module, "LIST_CHUNK", 2)
    api.answers += [
        (200, {"items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}], "metadata": {"continue": "t"}}),
        (200, {"items": None, "metadata": {}}),
    ]
    assert [m["name"] async for m in client.list_metadata(SECRET_MANAGER_CONFIGS)] == ["a", "b"]
    assert [path.partition("?")[2] for _, path, _, _ in api.requests] == ["limit=2", "limit=2&continue=t"]
    assert "PartialObjectMetadataList" in api.requests[0][2]["Accept"]


async def test_a_kind_that_is_not_served_is_a_404_of_its_listing(api, client):
    """The API server says so in plain text; a cluster without Flux must not look like one that does not answer."""
    api.answers.append((404, "404 page not found\n"))
    with pytest.raises(KubeError) as refused:
        [m async for m in client.list_metadata(SECRET_MANAGER_CONFIGS)]
    assert refused.value.status == 404


@pytest.mark.parametrize(
    ("attributes", "header"),
    [
        pytest.param({"api_key": {"authorization": "Bearer t0ken"}}, "Bearer t0ken", id="token"),
        pytest.param({"username": "jane", "password": "x"}, "Basic amFuZTp4", id="password"),
        pytest.param({"cert_file": "/c", "key_file": "/k"}, None, id="certificate"),
    ],
)
def test_a_login_by_certificate_sends_no_authorization(attributes, header):
    configuration = Configuration()
    for name, value in attributes.items():
        setattr(configuration, name, value)
    assert ApiServer(configuration).authorization() == header
