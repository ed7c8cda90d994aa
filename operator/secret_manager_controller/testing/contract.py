"""What every provider must do: one suite, run against the fake and against each real adapter.

A provider's tests subclass `ProviderContract` and define the fixture `subject`:

    class TestMyProvider(ProviderContract):
        @pytest.fixture
        async def subject(self, server):
            provider = MyProvider(…)
            yield Subject(provider, MyControl(server), requests={"create": ["Create"], …})
            await provider.aclose()

A store that lacks something names it in `Subject.lacks`, and the cases that need it are skipped. The suite needs pytest
and pytest-asyncio.
"""

# ruff: noqa: D102 - the name of a case is its sentence.

from __future__ import annotations

import asyncio
import base64
import logging
import traceback
from collections.abc import Mapping

import pytest

from lease_sharding.fence import OwnershipLost, SoleMemberFence
from secret_manager_controller.errors import ControllerError, PermanentError, Reason, RetryableError
from secret_manager_controller.model.observed import OwnerMark, RemoteSecret, RemoteState
from secret_manager_controller.model.secret import SecretName, SecretValue, Version
from secret_manager_controller.testing.contract_subject import (
    BINARY_VALUES,
    DECLARED,
    LABEL,
    MANY_ATTEMPTS,
    ME,
    NEIGHBOUR,
    STRANGER,
    VALUES,
    CountingFence,
    Lacks,
    StoreControl,
    Subject,
)

__all__ = ["Lacks", "ProviderContract", "StoreControl", "Subject"]

METHODS = pytest.mark.parametrize("method", ["create", "update", "adopt", "delete"])


class ProviderContract:
    """The suite. Subclass it, name the subclass `Test…`, and define the fixture `subject`."""

    pytestmark = pytest.mark.asyncio

    # observe

    async def test_observe_leaves_out_what_does_not_exist(self, subject: Subject) -> None:
        observed = await subject.provider.observe([SecretName("absent")], mark=ME)
        assert observed.secrets == {}

    async def test_observe_tells_version_and_mark_of_what_was_created(self, subject: Subject) -> None:
        version = await subject.write("a", b"v")
        assert await subject.look("a") == RemoteSecret(SecretName("a"), version, ME)

    async def test_observe_finds_what_carries_the_mark_without_its_name(self, subject: Subject) -> None:
        await subject.write("a", b"v")
        observed = await subject.provider.observe([], mark=ME)
        assert set(observed.secrets) == {"a"}

    async def test_observe_tells_the_marks_of_others_apart(self, subject: Subject) -> None:
        for name, mark in {"mine": ME, "neighbours": NEIGHBOUR, "strangers": STRANGER, "nobodys": None}.items():
            subject.store.put_by_hand(name, b"v", mark=mark)
        names = [SecretName(name) for name in ("mine", "neighbours", "strangers", "nobodys")]
        observed = await subject.provider.observe(names, mark=ME)
        marks = {name: remote.mark for name, remote in observed.secrets.items()}
        assert marks == {"mine": ME, "neighbours": NEIGHBOUR, "strangers": STRANGER, "nobodys": None}

    async def test_observe_does_not_bring_what_others_own_unasked(self, subject: Subject) -> None:
        for name, mark in {"mine": ME, "neighbours": NEIGHBOUR, "strangers": STRANGER, "nobodys": None}.items():
            subject.store.put_by_hand(name, b"v", mark=mark)
        observed = await subject.provider.observe([], mark=ME)
        assert set(observed.secrets) == {"mine"}

    async def test_observe_follows_pages(self, subject: Subject) -> None:
        names = {f"s-{number:03}" for number in range(subject.page + 20)}
        for name in names:
            subject.store.put_by_hand(name, b"v", mark=ME)
        observed = await subject.provider.observe([], mark=ME)
        assert set(observed.secrets) == names

    async def test_observe_sees_a_write_by_hand_as_another_version(self, subject: Subject) -> None:
        version = await subject.write("a", b"v")
        subject.store.put_by_hand("a", b"by hand")
        assert (await subject.look("a")).version not in {version, None}

    async def test_observe_sees_a_secret_without_a_version(self, subject: Subject) -> None:
        subject.needs(Lacks.EMPTY)
        subject.store.create_empty("a", mark=ME)
        assert await subject.look("a") == RemoteSecret(SecretName("a"), None, ME)

    async def test_observe_sees_a_scheduled_deletion(self, subject: Subject) -> None:
        subject.needs(Lacks.RECOVERY)
        await subject.write("a", b"v")
        subject.store.schedule_deletion("a")
        remote = await subject.look("a")
        assert (remote.mark, remote.state) == (ME, RemoteState.DELETION_SCHEDULED)

    # read

    @pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
    async def test_read_returns_what_was_written(self, subject: Subject, value: bytes) -> None:
        version = await subject.write("a", value)
        await self._expect(subject, {"a": (version, value)})

    @pytest.mark.parametrize("value", BINARY_VALUES.values(), ids=BINARY_VALUES.keys())
    async def test_read_returns_binary_values(self, subject: Subject, value: bytes) -> None:
        subject.needs(Lacks.BINARY)
        version = await subject.write("a", value)
        await self._expect(subject, {"a": (version, value)})

    async def test_the_largest_value_can_be_written_and_read(self, subject: Subject) -> None:
        value = b"x" * subject.largest
        version = await subject.write("a", value)
        await self._expect(subject, {"a": (version, value)})

    async def test_read_returns_many_values(self, subject: Subject) -> None:
        names = [f"s-{number:02}" for number in range(45)]
        written = await asyncio.gather(*(subject.write(name, name.encode()) for name in names))
        await self._expect(
            subject, {name: (version, name.encode()) for name, version in zip(names, written, strict=True)}
        )

    async def test_read_returns_the_value_of_now_with_its_version(self, subject: Subject) -> None:
        version = await subject.write("a", b"v")
        subject.store.put_by_hand("a", b"by hand")
        values = await subject.provider.read([RemoteSecret(SecretName("a"), version, ME)])
        now = await subject.look("a")
        assert values[now.name].version == now.version
        assert values[now.name].value == SecretValue(b"by hand")

    @pytest.mark.parametrize("beside", [0, 1], ids=["alone", "beside another"])
    async def test_read_leaves_out_what_has_no_value(self, subject: Subject, beside: int) -> None:
        unreadable = ["gone"]
        if Lacks.EMPTY not in subject.lacks:
            subject.store.create_empty("empty", mark=ME)
            unreadable.append("empty")
        if Lacks.RECOVERY not in subject.lacks:
            subject.store.put_by_hand("deleted", b"v", mark=ME)
            subject.store.schedule_deletion("deleted")
            unreadable.append("deleted")
        others = ["other"] * beside
        for name in others:
            subject.store.put_by_hand(name, b"v", mark=ME)
        for name in unreadable:
            remotes = [RemoteSecret(SecretName(each), None, ME) for each in (name, *others)]
            assert set(await subject.provider.read(remotes)) == set(others)

    async def test_read_of_nothing_is_nothing(self, subject: Subject) -> None:
        assert await subject.provider.read([]) == {}

    # create

    async def test_create_stores_value_and_mark_as_one_version(self, subject: Subject) -> None:
        await subject.write("a", b"v")
        assert subject.store.values() == {"a": b"v"}
        assert subject.store.mark("a") == ME
        assert subject.store.versions("a") == 1

    @pytest.mark.parametrize("mark", [None, NEIGHBOUR, STRANGER], ids=["nobody's", "another's", "another cluster's"])
    async def test_create_leaves_what_exists(self, subject: Subject, mark: OwnerMark | None) -> None:
        subject.store.put_by_hand("a", b"theirs", mark=mark)
        with pytest.raises(PermanentError) as raised:
            await subject.write("a", b"v")
        assert raised.value.reason is Reason.CONFLICT
        assert subject.store.values() == {"a": b"theirs"}
        assert subject.store.mark("a") == mark

    async def test_a_repeated_create_makes_no_second_version(self, subject: Subject) -> None:
        version = await subject.write("a", b"v")
        assert await subject.write("a", b"v") == version
        assert subject.store.versions("a") == 1

    # update

    async def test_update_writes_another_version_and_keeps_the_mark(self, subject: Subject) -> None:
        first = await subject.write("a", b"v")
        second = await subject.write("a", b"w", current=await subject.look("a"))
        assert second != first
        assert await subject.look("a") == RemoteSecret(SecretName("a"), second, ME)
        assert subject.store.values() == {"a": b"w"}

    async def test_update_refuses_to_replace_what_it_did_not_see(self, subject: Subject) -> None:
        subject.needs(Lacks.COMPARE_AND_SWAP)
        await subject.write("a", b"v")
        seen = await subject.look("a")
        subject.store.put_by_hand("a", b"by hand")
        with pytest.raises(RetryableError) as raised:
            await subject.write("a", b"w", current=seen)
        assert raised.value.reason is Reason.STORE_CHANGED
        assert subject.store.values() == {"a": b"by hand"}

    async def test_of_concurrent_updates_one_wins(self, subject: Subject) -> None:
        subject.needs(Lacks.COMPARE_AND_SWAP)
        await subject.write("a", b"v")
        seen = await subject.look("a")
        writes = [subject.write("a", f"w{number}".encode(), current=seen) for number in range(8)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        winners = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, str)]
        reasons = {outcome.reason for outcome in outcomes if isinstance(outcome, ControllerError)}
        assert len(winners) == 1
        assert reasons == {Reason.STORE_CHANGED}
        assert subject.store.values() == {"a": f"w{winners[0]}".encode()}

    async def test_a_repeated_update_makes_no_second_version(self, subject: Subject) -> None:
        await subject.write("a", b"v")
        seen = await subject.look("a")
        version = await subject.write("a", b"w", current=seen)
        assert await subject.write("a", b"w", current=seen) == version
        assert subject.store.versions("a") == 2

    async def test_a_value_that_comes_back_is_a_new_version(self, subject: Subject) -> None:
        versions = [await subject.write("a", b"A")]
        for value in (b"B", b"A", b"B", b"A"):
            versions.append(await subject.write("a", value, current=await subject.look("a")))
            assert subject.store.values() == {"a": value}
        assert len(set(versions)) == 5

    async def test_update_restores_what_is_scheduled_for_deletion(self, subject: Subject) -> None:
        subject.needs(Lacks.RECOVERY)
        await subject.write("a", b"v")
        subject.store.schedule_deletion("a")
        version = await subject.write("a", b"w", current=await subject.look("a"))
        assert await subject.look("a") == RemoteSecret(SecretName("a"), version, ME)
        assert subject.store.values() == {"a": b"w"}

    async def test_update_writes_the_first_version(self, subject: Subject) -> None:
        subject.needs(Lacks.EMPTY)
        subject.store.create_empty("a", mark=ME)
        version = await subject.write("a", b"v", current=await subject.look("a"))
        assert (await subject.look("a")).version == version
        assert subject.store.values() == {"a": b"v"}

    async def test_update_does_not_bring_back_what_is_gone(self, subject: Subject) -> None:
        await subject.write("a", b"v")
        seen = await subject.look("a")
        subject.store.destroy("a")
        with pytest.raises(RetryableError) as raised:
            await subject.write("a", b"w", current=seen)
        assert raised.value.reason is Reason.STORE_CHANGED
        assert subject.store.values() == {}

    # adopt

    @pytest.mark.parametrize("mark", [None, NEIGHBOUR], ids=["nobody's", "a former owner's"])
    async def test_adopt_marks_and_leaves_the_value(self, subject: Subject, mark: OwnerMark | None) -> None:
        subject.store.put_by_hand("a", b"v", mark=mark)
        before = await subject.look("a")
        await subject.provider.adopt(before, mark=ME, fence=SoleMemberFence())
        assert await subject.look("a") == RemoteSecret(SecretName("a"), before.version, ME)
        assert subject.store.values() == {"a": b"v"}

    async def test_what_was_adopted_can_be_updated(self, subject: Subject) -> None:
        subject.store.put_by_hand("a", b"v")
        await subject.provider.adopt(await subject.look("a"), mark=ME, fence=SoleMemberFence())
        await subject.write("a", b"w", current=await subject.look("a"))
        assert subject.store.values() == {"a": b"w"}

    async def test_adopt_of_what_is_gone_is_told(self, subject: Subject) -> None:
        with pytest.raises(RetryableError) as raised:
            await subject.provider.adopt(RemoteSecret(SecretName("a"), None, None), mark=ME, fence=SoleMemberFence())
        assert raised.value.reason is Reason.STORE_CHANGED

    # options

    async def test_create_writes_what_is_declared(self, subject: Subject) -> None:
        await subject.optioned().write("a", b"v")
        assert subject.store.labels("a")[LABEL] == DECLARED
        assert not (await subject.optioned().look("a")).options_differ

    @pytest.mark.parametrize("present", [None, "red"], ids=["absent", "another"])
    async def test_observe_sees_other_options_than_are_declared(self, subject: Subject, present: str | None) -> None:
        optioned = subject.optioned()
        version = await subject.write("a", b"v")
        if present is not None:
            subject.store.set_label("a", LABEL, present)
        assert await optioned.look("a") == RemoteSecret(SecretName("a"), version, ME, options_differ=True)

    async def test_what_is_not_declared_is_not_managed(self, subject: Subject) -> None:
        optioned = subject.optioned()
        await optioned.write("a", b"v")
        subject.store.set_label("a", "by-hand", "x")
        assert not (await optioned.look("a")).options_differ
        subject.store.set_label("a", LABEL, "red")
        assert not (await subject.look("a")).options_differ
        await subject.write("a", b"w", current=await subject.look("a"))
        labels = subject.store.labels("a")
        assert (labels[LABEL], labels["by-hand"]) == ("red", "x")

    async def test_options_are_set_without_another_version(self, subject: Subject) -> None:
        optioned = subject.optioned()
        version = await subject.write("a", b"v")
        subject.store.set_label("a", "by-hand", "x")
        for _ in range(2):
            await optioned.provider.adopt(await optioned.look("a"), mark=ME, fence=SoleMemberFence())
        assert await optioned.look("a") == RemoteSecret(SecretName("a"), version, ME)
        assert subject.store.labels("a").items() >= {(LABEL, DECLARED), ("by-hand", "x")}
        assert subject.store.versions("a") == 1

    async def test_options_are_not_set_on_what_somebody_else_took(self, subject: Subject) -> None:
        optioned = subject.optioned()
        subject.store.put_by_hand("a", b"theirs", mark=NEIGHBOUR)
        with pytest.raises(RetryableError) as raised:
            await optioned.provider.adopt(
                RemoteSecret(SecretName("a"), (await subject.look("a")).version, ME, options_differ=True),
                mark=ME,
                fence=SoleMemberFence(),
            )
        assert raised.value.reason is Reason.STORE_CHANGED
        assert LABEL not in subject.store.labels("a")

    async def test_update_writes_what_is_declared(self, subject: Subject) -> None:
        optioned = subject.optioned()
        await subject.write("a", b"v")
        await optioned.write("a", b"w", current=await optioned.look("a"))
        assert subject.store.labels("a")[LABEL] == DECLARED
        assert not (await optioned.look("a")).options_differ
        assert subject.store.versions("a") == 2

    async def test_adopt_writes_what_is_declared(self, subject: Subject) -> None:
        optioned = subject.optioned()
        subject.store.put_by_hand("a", b"v")
        await optioned.provider.adopt(await optioned.look("a"), mark=ME, fence=SoleMemberFence())
        assert (subject.store.mark("a"), subject.store.labels("a")[LABEL]) == (ME, DECLARED)
        assert not (await optioned.look("a")).options_differ

    # delete

    async def test_delete_makes_a_secret_unusable(self, subject: Subject) -> None:
        await subject.write("a", b"v")
        await subject.provider.delete(await subject.look("a"), fence=SoleMemberFence())
        assert subject.store.values() == {}

    async def test_a_repeated_delete_is_fine(self, subject: Subject) -> None:
        await subject.write("a", b"v")
        seen = await subject.look("a")
        await subject.provider.delete(seen, fence=SoleMemberFence())
        await subject.provider.delete(seen, fence=SoleMemberFence())
        assert subject.store.values() == {}

    async def test_delete_of_what_is_gone_is_fine(self, subject: Subject) -> None:
        await subject.provider.delete(RemoteSecret(SecretName("a"), None, ME), fence=SoleMemberFence())

    # faults

    @METHODS
    async def test_one_lost_answer_changes_nothing(self, subject: Subject, method: str) -> None:
        """Whichever request's answer is lost once: the write, repeated if it was told to fail, is done once."""
        await self._lose(subject, method, times=1)

    @METHODS
    async def test_a_write_repeated_after_lost_answers_is_done_once(self, subject: Subject, method: str) -> None:
        """Whichever request's answers are lost until the provider gives up: the write, repeated, is done once."""
        await self._lose(subject, method, times=MANY_ATTEMPTS)

    @METHODS
    async def test_a_store_that_is_down_is_a_retryable_error(self, subject: Subject, method: str) -> None:
        subject.needs(Lacks.FAULTS)
        subject.prepare(method, "a")
        subject.store.fail_requests(subject.requests[method][0], times=MANY_ATTEMPTS, commit=False)
        with pytest.raises(RetryableError) as raised:
            await subject.call(method, "a", SoleMemberFence())
        assert raised.value.reason is Reason.STORE_UNAVAILABLE

    # fence

    @METHODS
    async def test_a_closed_fence_lets_nothing_through(self, subject: Subject, method: str) -> None:
        before = subject.prepare(method, "a")
        fence = SoleMemberFence()
        fence.revoke()
        with pytest.raises(OwnershipLost):
            await subject.call(method, "a", fence)
        assert len(subject.store.writes()) == before

    @METHODS
    async def test_the_fence_is_checked_before_each_request(self, subject: Subject, method: str) -> None:
        requests = len(subject.requests[method])
        for allowed in range(requests):
            name = f"{method}-{allowed}"
            before = subject.prepare(method, name)
            with pytest.raises(OwnershipLost):
                await subject.call(method, name, CountingFence(allowed))
            assert len(subject.store.writes()) - before == allowed
        fence = CountingFence(requests)
        subject.prepare(method, "done")
        await subject.call(method, "done", fence)
        assert len(fence.margins) == requests
        assert min(fence.margins) > 0

    @METHODS
    async def test_the_fence_is_checked_before_each_attempt(self, subject: Subject, method: str) -> None:
        subject.needs(Lacks.FAULTS)
        before = subject.prepare(method, "a")
        subject.store.fail_requests(subject.requests[method][0], times=MANY_ATTEMPTS, commit=False)
        fence = CountingFence(1)
        with pytest.raises((OwnershipLost, RetryableError)):
            await subject.call(method, "a", fence)
        assert len(subject.store.writes()) - before == 1

    # secrecy

    @METHODS
    async def test_values_reach_no_log_and_no_error(
        self, subject: Subject, method: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        value = b"gr\xc3\xbcn-s3cr3t-value"
        shapes = (value.decode(), ascii(value.decode())[1:-1], repr(value)[2:-1], base64.b64encode(value).decode())
        caplog.set_level(logging.DEBUG)
        errors: list[BaseException] = []
        for down in ((), subject.requests[method]) if Lacks.FAULTS not in subject.lacks else ((),):
            name = f"a-{len(down)}"
            subject.prepare(method, name)
            for request in down:
                subject.store.fail_requests(request, times=MANY_ATTEMPTS, commit=False)
            try:
                await self._write_value(subject, method, name, value)
            except ControllerError as error:
                errors.append(error)
        told = caplog.text + "".join(text for error in errors for text in _all_text(error))
        assert [shape for shape in shapes if shape in told] == []

    async def _write_value(self, subject: Subject, method: str, name: str, value: bytes) -> None:
        if method == "create":
            await subject.write(name, value)
        elif method == "update":
            await subject.write(name, value, current=await subject.look(name))
        else:
            subject.store.put_by_hand(name, value)
            await subject.provider.read([await subject.look(name)])
            await subject.call(method, name, SoleMemberFence())

    async def _expect(self, subject: Subject, values: Mapping[str, tuple[Version, bytes]]) -> None:
        remotes = [RemoteSecret(SecretName(name), version, ME) for name, (version, _) in values.items()]
        read = await subject.provider.read(remotes)
        assert {name: (each.version, each.value.expose()) for name, each in read.items()} == values

    async def _lose(self, subject: Subject, method: str, *, times: int) -> None:
        subject.needs(Lacks.FAULTS)
        versions = {"create": 1, "update": 2, "adopt": 1}
        for request in subject.requests[method]:
            name = f"a-{request}"
            subject.prepare(method, name)
            current = await subject.look(name) if method != "create" else None
            subject.store.fail_requests(request, times=times, commit=True)
            try:
                await self._repeat(subject, method, name, current)
            except RetryableError:
                subject.store.clear_faults()
                await self._repeat(subject, method, name, current)
            subject.store.clear_faults()
            if method == "delete":
                assert name not in subject.store.values()
            else:
                assert subject.store.versions(name) == versions[method]
                assert subject.store.values()[name] == (b"old" if method == "adopt" else b"new")
                assert subject.store.mark(name) == ME

    async def _repeat(self, subject: Subject, method: str, name: str, current: RemoteSecret | None) -> None:
        """Make a write from what was seen before the first attempt."""
        fence = SoleMemberFence()
        if current is None or method == "update":
            await subject.write(name, b"new", current=current)
        elif method == "adopt":
            await subject.provider.adopt(current, mark=ME, fence=fence)
        else:
            await subject.provider.delete(current, fence=fence)


def _all_text(error: BaseException) -> list[str]:
    """Return all that a careless log could tell of an error, its causes and contexts included."""
    texts, link = ["".join(traceback.format_exception(error))], error.__context__
    while link is not None:
        texts.append(f"{link!r} {link}")
        link = link.__context__
    return texts
