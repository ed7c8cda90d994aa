"""The API client against a small server: what it sends, and what it makes of any answer."""

from types import SimpleNamespace

import pytest
from aiohttp import web
from kubernetes.client import Configuration

from secret_manager_controller import kube as kube_module
from secret_manager_controller.kube import SECRET_MANAGER_CONFIGS, ApiServer, KubeClient, KubeError

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
