"""`msmctl apply`, against a store in memory."""

import asyncio
import os
import signal

import pytest
import yaml

from secret_manager_controller.cli import apply as apply_module
from secret_manager_controller.cli.main import cli
from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.model.observed import OwnerMark

ME = OwnerMark("standalone", "team/app")


def test_prints_the_plan_then_what_was_done(store, one_shot, worktree, manifest):
    manifest["spec"]["prune"] = True
    worktree(NEW="1", CHANGED="2", SAME="3")
    store.put_by_hand("app-CHANGED", b"old", mark=ME)
    store.put_by_hand("app-SAME", b"3", mark=ME)
    store.put_by_hand("app-GONE", b"4", mark=ME)
    result = one_shot("apply")
    assert (
        result.stdout
        == """\
SecretManagerConfig 'team/app' (aws/eu-central-1, revision worktree):
  ~ update   app-CHANGED
  + create   app-NEW
  - prune    app-GONE

Plan: 1 to create, 1 to update, 0 to adopt, 1 to prune, 1 unchanged.

SecretManagerConfig 'team/app': 1 created, 1 updated, 0 adopted, 1 pruned; 3 of 3 in sync
"""
    )
    assert (result.stderr, result.exit_code) == ("", 0)
    assert store.values() == {"app-NEW": b"1", "app-CHANGED": b"2", "app-SAME": b"3"}
    assert store.mark("app-NEW") == ME


def test_a_second_time_there_is_nothing_to_do(store, one_shot, worktree):
    worktree(KEY="1")
    one_shot("apply")
    store.clear_calls()
    result = one_shot("apply")
    assert result.stdout.endswith("Plan: 0 to create, 0 to update, 0 to adopt, 0 to prune, 1 unchanged.\n")
    assert (result.exit_code, store.writes()) == (0, [])


@pytest.mark.parametrize(
    "obstacle",
    [
        lambda store: store.put_by_hand("app-KEY", b"0"),
        lambda store: store.fail("create", PermanentError(Reason.STORE_REFUSED, "no\x1b")),
        lambda store: store.fail("observe"),
    ],
    ids=["conflict", "refused-write", "store-away"],
)
def test_ends_with_1_when_not_everything_was_applied(store, one_shot, worktree, obstacle):
    worktree(KEY="1", OTHER="2")
    obstacle(store)
    result = one_shot("apply")
    assert result.exit_code == 1
    assert "\x1b" not in result.output
    assert one_shot("apply").exit_code == (1 if store.values().get("app-KEY") == b"0" else 0)


def test_tells_each_failed_write_and_what_was_not_begun(store, one_shot, worktree):
    worktree(A="1")
    store.fail("create", PermanentError(Reason.STORE_REFUSED, "the store says no"))
    assert one_shot("apply").stdout.splitlines()[-2:] == [
        "SecretManagerConfig 'team/app': 0 created, 0 updated, 0 adopted, 0 pruned; 0 of 1 in sync",
        "  ! failed   app-A  (StoreRefused: the store says no)",
    ]
    worktree(**{f"K{number}": "1" for number in range(20)})
    store.fail("create", times=20)
    assert one_shot("apply").stdout.splitlines()[-1] == "  12 more were not begun"


def test_keeps_what_the_bound_of_prune_holds_back_and_ends_with_1(store, one_shot, worktree, manifest):
    manifest["spec"]["prune"] = True
    worktree(KEPT="1")
    for number in range(6):
        store.put_by_hand(f"app-GONE{number}", b"1", mark=ME)
    assert one_shot("apply").exit_code == 1
    assert len(store.values()) == 7
    assert one_shot("apply", "--confirm-prune").exit_code == 0
    assert store.values() == {"app-KEPT": b"1"}


def test_a_broken_object_does_not_stop_the_others_but_ends_with_1(store, one_shot, worktree, write_file, manifest):
    worktree(KEY="1")
    broken = {**manifest, "metadata": {"name": "broken"}, "spec": {}}
    result = one_shot("apply", "-f", write_file(broken, manifest))
    assert store.values() == {"app-KEY": b"1"}
    assert result.exit_code == 1


def test_two_objects_never_own_one_secret(store, one_shot, worktree, write_file, manifest):
    worktree(KEY="1")
    other = {**manifest, "metadata": {"name": "other", "namespace": "team"}}
    result = one_shot("apply", "-f", write_file(manifest, other))
    assert result.exit_code == 1
    assert "  ! failed   app-KEY  (Conflict: 'app-KEY' exists already)" in result.stdout
    assert (store.mark("app-KEY"), store.versions("app-KEY")) == (ME, 1)


@pytest.fixture
def terminal(monkeypatch):
    """Let there be somebody to ask."""
    monkeypatch.setattr(apply_module, "is_interactive", lambda: True)


@pytest.mark.parametrize(
    ("arguments", "answer", "code", "applied"),
    [
        ([], "y\n", 0, True),
        ([], "n\n", 1, False),
        ([], "\n", 1, False),
        ([], "", 130, False),
        (["--yes"], "", 0, True),
    ],
    ids=["yes", "no", "enter", "end-of-input", "option"],
)
def test_asks_somebody_at_a_terminal(store, one_shot, worktree, terminal, arguments, answer, code, applied):
    worktree(KEY="1")
    result = one_shot("apply", *arguments, input=answer)
    assert ("Apply this? [y/N]" in result.output) is (not arguments)
    assert (result.exit_code, bool(store.values())) == (code, applied)


def test_asks_nothing_when_there_is_nothing_to_do(store, one_shot, worktree, terminal):
    worktree(KEY="1")
    store.put_by_hand("app-KEY", b"1", mark=ME)
    assert "Apply this?" not in one_shot("apply").output


def test_applies_exactly_what_was_shown(store, one_shot, worktree, terminal, monkeypatch):
    """Somebody writes the secret while we ask: what they wrote is not overwritten unseen."""
    worktree(KEY="1")
    store.put_by_hand("app-KEY", b"0", mark=ME)

    def write_meanwhile(_):
        store.put_by_hand("app-KEY", b"theirs")
        return True

    monkeypatch.setattr(apply_module, "confirm", write_meanwhile)
    result = one_shot("apply")
    assert "StoreChanged" in result.stdout
    assert (store.values(), result.exit_code) == ({"app-KEY": b"theirs"}, 1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_a_signal_lets_calls_under_way_end_and_begins_no_other(store, one_shot, worktree, number, code):
    worktree(**{f"K{index:02}": "1" for index in range(20)})
    held = store.hold("create")
    arrive, arrived = store.arrive, []

    async def signalled(operation):
        if operation == "create":
            arrived.append(operation)
            if len(arrived) == 8:  # So many are written at a time.
                os.kill(os.getpid(), number)
                asyncio.get_running_loop().call_later(0.05, held.set)
        await arrive(operation)

    store.arrive = signalled
    result = one_shot("apply")
    assert len(store.values()) == 8
    assert result.stderr == (
        "note: stopped: what was begun was finished, the rest was not begun; `msmctl plan` shows what is left\n"
    )
    assert result.exit_code == code


def test_asks_nobody_when_the_manifest_comes_from_stdin(store, worktree, one_shot, manifest, terminal):
    worktree(KEY="1")
    result = one_shot("apply", "-f", "-", input=yaml.safe_dump(manifest))
    assert "Apply this?" not in result.output
    assert store.values() == {"app-KEY": b"1"}


def test_help_says_that_there_is_no_cluster():
    command = cli.get_command(None, "apply")
    assert command.help == "Make the store equal to a directory, once and without a cluster."
