"""Members, shards and fences over Kubernetes Leases; knows nothing of secrets.

What belongs here: who may act for a key, and until when. What must not: anything of what is done with that right.
Neither the controller nor its telemetry is imported from here.

The protocol
------------

Every key is in a shard (`assign.shard_of`). Each member renews one Lease, its *session*. Each shard has one Lease, its
*claim*, which names the member that owns it and that member's session; it is written when the owner changes. All writes
are compare-and-swap. One more Lease holds the shard count.

1. **A right ends before others begin.** A member relies on its session until `margin` before the session's duration has
   passed since its last renewal *began*, and since its last listing began that showed its claims (`session.Session`).
   Others count the same duration from when they first *saw* that renewal (`observe.view_session`), which is later. So
   clocks need not agree; they must only run alike.
2. **A session that has lapsed never resumes.** All fences under it fail for good. The member waits until the last call
   under it has returned, and begins another session under a new id (`member.Member`).
3. **Who takes over takes the session first** (`caretaker.Caretaker`): it ends a lapsed session by writing into its
   Lease. If its member is alive after all, the next renewal conflicts, and the member knows.
4. **A claim is taken at once only on written evidence** (`observe.claim_state`): its holder has released it (`FREE`),
   or the session that it is held under is written to have ended (`DEAD`). A seal, which is a checksum, shows that it
   was a member that wrote so. Anything else (absent, edited, of an unknown session) is `UNCERTAIN` and waited out for
   one session: by rule 1 whoever held it has stopped then.
5. **A claim is released only after the last call has returned** (`claims.Claims`), or not at all: then it dies with the
   session.
6. **Every member decides for itself**, by one pure function of what it sees and the time (`decide.decide`): which
   claims to take, so that everybody gets its share, and which to release. Where two disagree, compare-and-swap lets
   one of them win, and the loser looks again.
7. **Each owner has a higher epoch** than all before (`observe.ClaimView.next_epoch`).

What stands where
-----------------

pure     `assign` keys, shards, shares · `leases` Leases as values and their transitions · `observe` what a Lease means
         · `view` what was seen when · `decide` what to do · `unwilling` whom not to count on · `snapshot` for people
effects  `session` opened, renewed, lost · `claims` taken, drained, released · `caretaker` for the group · `sync` lists
         and watches · `member` strings them together
seams    `protocol` what is needed of the API server, and of the user · `client` the real one · `fence` and `inflight`,
         which the user calls · `settings` · `errors`
testing  an API server in memory, virtual time, random schedules of faults, and a referee
"""
