"""The referee catches a protocol that lacks one of its rules: each rule is removed, and the day that needs it comes.

The same day with the whole protocol is no violation, so it is the missing rule that is caught.
"""

import dataclasses

import pytest

from lease_sharding import leases, view
from lease_sharding.claims import Claims, Phase
from lease_sharding.leases import SESSION
from lease_sharding.observe import LIVING, ClaimState, ClaimView, claim_state
from lease_sharding.session import Session
from lease_sharding.settings import Settings
from lease_sharding.testing.referee import Violation
from lease_sharding.testing.simulation import SKEW, Simulation

SETTINGS = Settings(group="demo", shards=8, drain_timeout=8)


# The days.


def cut_off_with_a_slow_clock(simulation):
    """Just when it has listed and then renewed: so its session lasts as long as the others believe."""
    wait_for_a_renewal(simulation, "b")
    session = simulation.processes["b"].member._session
    session.confirm(session.renewed)
    simulation.processes["b"].network.cut = True
    simulation.advance(20)


def slow_answers_and_then_none(simulation):
    simulation.processes["b"].network.slow = 1.9
    simulation.advance(12)
    wait_for_a_renewal(simulation, "b")
    simulation.processes["b"].network.cut = True
    simulation.advance(20)


def stopped_past_its_session(simulation):
    simulation.pause("b")
    simulation.advance(25)
    simulation.resume("b")
    simulation.advance(5)


def back_with_an_old_picture(simulation):
    simulation.processes["b"].network.blind = True
    stopped_past_its_session(simulation)


def edited_while_its_owner_cannot_list(simulation):
    simulation.processes["b"].network.blind = True
    name = owned_claim(simulation, "b")
    simulation.edit(name, lambda lease: dataclasses.replace(lease, holder=None))
    simulation.advance(20)


def given_to_somebody_by_hand(simulation):
    name, thief = owned_claim(simulation, "b"), simulation.processes["a"].member.session_id
    change = {"holder": "a"}
    simulation.edit(
        name, lambda lease: dataclasses.replace(lease, **change, annotations={**lease.annotations, SESSION: thief})
    )
    simulation.advance(20)


def deleted_while_its_owner_cannot_list(simulation):
    simulation.processes["b"].network.blind = True
    simulation.remove(owned_claim(simulation, "b"))
    simulation.advance(20)


def the_api_server_is_gone_for_a_minute(simulation):
    simulation.server.down = True
    simulation.advance(60)
    simulation.server.down = False
    simulation.judge_rest()


def leaving(simulation):
    simulation.leave("b")
    simulation.advance(10)


def wait_for_a_renewal(simulation, member):
    session = simulation.processes[member].member._session
    before = session.renewed
    while session.renewed == before:
        simulation.advance(0.01)


def owned_claim(simulation, member):
    shard = min(simulation.processes[member].member.owned)
    return simulation.names.claim(shard)


# The rules, each removed.


def no_margin(monkeypatch):
    def deadline(self):
        usable = self._context.settings.session_duration
        return float("-inf") if self.reason else min(self.renewed, self._confirmed) + usable

    monkeypatch.setattr(Session, "deadline", deadline)


def renewals_count_from_the_answer(monkeypatch):
    renew = Session._renew

    async def later(self, started):
        renewed = await renew(self, started)
        self.renewed = self._context.clock() if renewed else self.renewed
        return renewed

    def deadline(self):
        return float("-inf") if self.reason else self.renewed + self._usable

    monkeypatch.setattr(Session, "_renew", later)
    monkeypatch.setattr(Session, "deadline", deadline)


def a_lapsed_session_resumes(monkeypatch):
    monkeypatch.setattr(Session, "deadline", lambda self: float("-inf") if self.reason else float("inf"))


def listings_are_not_needed(monkeypatch):
    monkeypatch.setattr(Session, "deadline", lambda self: float("-inf") if self.reason else self.renewed + self._usable)


def the_dead_session_is_not_taken_first(monkeypatch):
    def state(*arguments, **options):
        found = claim_state(*arguments, **options)
        return ClaimState.DEAD if found is ClaimState.LAPSED else found

    monkeypatch.setattr(view, "claim_state", state)


def what_is_uncertain_is_taken_at_once(monkeypatch):
    def state(record, holder, myself, *, restored=False):
        found = claim_state(record, holder, myself, restored=restored)
        return ClaimState.FREE if found is ClaimState.UNCERTAIN and record is not None else found

    monkeypatch.setattr(view, "claim_state", state)


def seals_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(leases, "is_sealed", lambda _: True)


def the_session_id_is_ignored(monkeypatch):
    def state(record, holder, myself, *, restored=False):
        if record is not None and record.sealed and holder is not None and holder.state in LIVING:
            return ClaimState.HELD
        return claim_state(record, holder, myself, restored=restored)

    monkeypatch.setattr(view, "claim_state", state)


def the_epoch_does_not_grow(monkeypatch):
    monkeypatch.setattr(ClaimView, "next_epoch", property(lambda self: self.record.epoch if self.record else 0))


def a_release_does_not_wait(monkeypatch):
    async def release(self, hold):
        hold.draining.cancel()
        self._tell_lost(hold, "it is being handed over")
        hold.phase = Phase.RELEASING
        await self._write_release(hold)
        self._holds.pop(hold.shard, None)

    monkeypatch.setattr(Claims, "_release", release)


def a_fence_is_not_revoked(monkeypatch):
    def tell_lost(self, hold, reason):
        del reason
        if hold.told:
            hold.told = False
            self._handler.on_lost(hold.shard)

    monkeypatch.setattr(Claims, "_tell_lost", tell_lost)


MUTANTS = {
    no_margin: cut_off_with_a_slow_clock,
    renewals_count_from_the_answer: slow_answers_and_then_none,
    a_lapsed_session_resumes: stopped_past_its_session,
    listings_are_not_needed: edited_while_its_owner_cannot_list,
    the_dead_session_is_not_taken_first: back_with_an_old_picture,
    what_is_uncertain_is_taken_at_once: deleted_while_its_owner_cannot_list,
    seals_are_not_looked_at: edited_while_its_owner_cannot_list,
    the_session_id_is_ignored: the_api_server_is_gone_for_a_minute,
    the_epoch_does_not_grow: leaving,
    a_release_does_not_wait: leaving,
    a_fence_is_not_revoked: given_to_somebody_by_hand,
}


def live_through(day):
    with Simulation("mutants", settings=SETTINGS) as simulation:
        for name, rate in {"a": 1 + SKEW, "b": 1 - SKEW, "c": 1 + SKEW}.items():
            simulation.start(name, rate=rate)
        simulation.advance_until(simulation.is_balanced, within=simulation.bound, what="no balance")
        simulation.advance(5)
        day(simulation)


@pytest.mark.parametrize("day", dict.fromkeys(MUTANTS.values()), ids=lambda day: day.__name__)
def test_the_whole_protocol_stands_the_day(day):
    live_through(day)


@pytest.mark.parametrize(("mutant", "day"), MUTANTS.items(), ids=lambda function: function.__name__)
def test_without_the_rule_the_referee_tells(monkeypatch, mutant, day):
    mutant(monkeypatch)
    with pytest.raises(Violation, match=r"while|after|at one time|unowned"):
        live_through(day)
