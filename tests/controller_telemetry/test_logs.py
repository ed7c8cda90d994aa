"""Logs are JSON lines, and no credential gets through them."""

import io
import json
import logging
import warnings

import pytest

from controller_telemetry.logs import REDACTED, configure_logging, redact

CANARY = "canary9f3a1b7c"


@pytest.fixture
def log():
    """Return a function that logs and returns the records as parsed."""
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    configure_logging("debug", stream=stream, quiet=("quiet",), hidden=("settings",))

    def record(write):
        write(logging.getLogger("app"))
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield record
    root.handlers[:], root.level = before, level
    logging.captureWarnings(capture=False)
    logging.getLogger("quiet").setLevel(logging.NOTSET)


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
