"""Members that live but leave shards to others are left out for a time."""

from lease_sharding.leases import Lease, SessionRecord
from lease_sharding.observe import ClaimView, SessionState, SessionView, Situation
from lease_sharding.unwilling import LONGEST, Unwilling


def situation(now, session="s1"):
    record = SessionRecord("a", session, (), False, 10, Lease(name="x"))
    view = SessionView(record, now, SessionState.LIVE, now + 10)
    claims: tuple[ClaimView, ...] = ()
    return Situation(now, {"a": view}, claims)


def test_it_counts_again_after_a_time_that_doubles():
    unwilling = Unwilling(10.0)
    now = 0.0
    for period in (10.0, 20.0, 40.0):
        unwilling.note("a", situation(now))
        unwilling.note("a", situation(now + 1))  # Noted again while it is left out: of no account.
        assert unwilling.members(situation(now + period - 0.1)) == {"a"}
        assert unwilling.next(now) == now + period
        assert unwilling.members(situation(now + period)) == frozenset()
        now += period
    for _ in range(9):
        unwilling.note("a", situation(now))
        now = unwilling.next(now)
    unwilling.note("a", situation(now))
    assert unwilling.next(now) == now + 10.0 * LONGEST


def test_a_new_session_is_forgiven():
    unwilling = Unwilling(10.0)
    unwilling.note("a", situation(0.0))
    assert unwilling.members(situation(1.0, session="s2")) == frozenset()
    assert unwilling.next(1.0) is None
