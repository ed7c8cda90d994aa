"""Logs are lines of fields, and no credential gets through them."""

import asyncio
import io
import json
import logging
import warnings

import pytest

from controller_telemetry.logs import REDACTED, LogFormat, configure_logging, every_line_with, redact

CANARY = "canary9f3a1b7c"


@pytest.fixture
def lines():
    """Return a function that logs in a format and returns the lines."""
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    def told(write, style=LogFormat.JSON):
        configure_logging("debug", style=style, stream=stream, quiet=("quiet",), hidden=("settings",))
        write(logging.getLogger("app"))
        return stream.getvalue().splitlines()

    yield told
    root.handlers[:], root.level = before, level
    logging.captureWarnings(capture=False)
    logging.getLogger("quiet").setLevel(logging.NOTSET)


@pytest.fixture
def log(lines):
    """Return a function that logs and returns the records as parsed."""
    return lambda write: [json.loads(line) for line in lines(write)]


def test_a_record_is_one_json_line_with_its_extras(log):
    (record,) = log(
        lambda logger: logger.info("Store updated", extra={"object": "team-a/idam", "changes": "created 2"})
    )
    assert record.pop("time")
    assert record == {
        "level": "INFO", "logger": "app", "message": "Store updated", "object": "team-a/idam", "changes": "created 2",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"key AGE-SECRET-KEY-1{CANARY.upper()} found", id="age key"),
        pytest.param(f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n{CANARY}\n-----END PGP PRIVATE KEY BLOCK-----", id="PGP"),
        pytest.param(f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}", id="a key that is cut off"),
        pytest.param(f"Authorization: Bearer {CANARY}", id="bearer token"),
        pytest.param(f"AWS_SECRET_ACCESS_KEY={CANARY}", id="access key"),
        pytest.param(f"password: {CANARY}", id="password"),
    ],
)
def test_what_looks_like_a_credential_is_redacted(log, text):
    assert CANARY not in redact(text)
    (record,) = log(lambda logger: logger.warning("told: %s", text))
    assert CANARY.lower() not in record["message"].lower()
    assert REDACTED in record["message"]


@pytest.mark.parametrize("wrap", [str, lambda text: {"told": [text]}, ValueError], ids=["text", "nested", "exception"])
def test_extras_are_redacted_as_messages_are(log, wrap):
    extra = {"error": wrap(f"password: {CANARY}"), "count": 3, "ratio": 0.5, "done": True, "revision": None}
    (record,) = log(lambda logger: logger.warning("Not ready", extra=extra))
    assert CANARY not in str(record)
    assert REDACTED in record["error"]
    assert {name: record[name] for name in ("count", "ratio", "done", "revision")} == {
        "count": 3, "ratio": 0.5, "done": True, "revision": None,
    }  # fmt: skip


def test_an_exception_is_told_by_its_type_alone(log):
    def write(logger):
        try:
            raise ValueError(CANARY)
        except ValueError:
            logger.exception("It failed")

    (record,) = log(write)
    assert record["error_type"] == "ValueError"
    assert CANARY not in str(record)


def test_quiet_loggers_tell_warnings_only_and_hidden_attributes_nothing(log):
    def write(logger):
        logging.getLogger("quiet.child").info("chatter")
        logging.getLogger("quiet.child").warning("trouble", extra={"settings": CANARY})
        warnings.warn("mind", UserWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        records = log(write)
    assert [record["logger"] for record in records] == ["quiet.child", "py.warnings"]
    assert CANARY not in str(records)


def test_an_unknown_level_is_an_error(log):  # The fixture puts the handlers back.
    with pytest.raises(ValueError, match="LOUD"):
        configure_logging("loud")


def test_every_format_tells_the_same_fields(lines):
    def write(logger):
        with every_line_with(shard=7):
            logger.warning("Not ready", extra={"object": "a/b", "error": 'no "x": a=b', "count": 2, "revision": None})

    (line,) = lines(write, LogFormat.LOGFMT)
    assert line.split(" ", 1)[1] == (
        r'level=WARNING logger=app message="Not ready" object=a/b error="no \"x\": a=b" count=2 revision=null shard=7'
    )


def test_a_console_shows_time_level_and_message_first(lines):
    (line,) = lines(lambda logger: logger.info("Store updated", extra={"changes": "created 2"}), LogFormat.CONSOLE)
    assert line.split(" ", 1)[1] == 'INFO    Store updated logger=app changes="created 2"'


@pytest.mark.parametrize("style", LogFormat)
def test_no_text_begins_a_line_or_escapes_redaction_in_any_format(lines, style):
    text = f"a\r\nlevel=ERROR \x1b[31m\u2028 password: {CANARY}"
    told = lines(lambda logger: logger.warning(text, extra={"error": text, "n": [text]}), style)
    assert len(told) == 1
    assert CANARY not in told[0]
    assert told[0].isprintable()
    assert told[0].count(REDACTED) == 3


def test_a_repeat_is_left_out_at_the_root(log):
    def write(logger):
        for _ in range(3):
            logger.warning("Not ready", extra={"object": "a/b"})

    assert len(log(write)) == 1


async def test_further_fields_follow_the_work_and_its_tasks(log):
    async def work(logger):
        logger.info("inside")

    logger = logging.getLogger("app")
    records = log(lambda _: None)
    with every_line_with(shard=3):
        task = asyncio.ensure_future(work(logger))
    await task
    logger.info("outside")
    records = log(lambda _: None)
    assert [record.get("shard") for record in records] == [3, None]
