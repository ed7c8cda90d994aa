"""Which shard a key is in, and which member should have which shard. Pure, and the same for every member.

The rank of a member in a share is its place among the sorted names; its weight for a shard is a hash of both
(highest-random-weight hashing), so that a member that comes or goes moves no shard between two others.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Iterable, Mapping


def shard_of(key: str, shards: int) -> int:
    """Return the shard of a key: the first 8 bytes of its SHA-256, big-endian, modulo the shard count.

    Stable across versions and languages; docs/sharding.md has test vectors.
    """
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % shards


def share(rank: int, *, members: int, shards: int) -> int:
    """Return how many shards the member of that rank should own: the shares of all members sum up to all shards."""
    return shards // members + (rank < shards % members)


def shares(members: Collection[str], shards: int) -> dict[str, int]:
    """Return how many shards each of the members should own."""
    return {
        member: share(rank, members=len(members), shards=shards) for rank, member in enumerate(sorted(set(members)))
    }


@functools.lru_cache(maxsize=65_536)
def weight(member: str, shard: int) -> int:
    """Return how strongly a member and a shard attract each other."""
    # A name holds no NUL, so no two pairs give one input.
    return int.from_bytes(hashlib.sha256(f"{member}\0{shard}".encode()).digest()[:8], "big")


def ranking(members: Iterable[str], shard: int) -> list[str]:
    """Return the members, the one that ranks highest for a shard first."""
    return sorted(members, key=lambda member: (-weight(member, shard), member))


def assignment(shards: Iterable[int], room: Mapping[str, int]) -> dict[int, str]:
    """Return who should claim each of the shards that nobody owns: who ranks highest of those that have room left.

    Args:
        shards: those to give away; shards beyond all room are given to nobody.
        room: how many shards each member lacks.
    """
    left = {member: lacking for member, lacking in room.items() if lacking > 0}
    given: dict[int, str] = {}
    for shard in sorted(shards):
        if not left:
            break
        member = ranking(left, shard)[0]
        given[shard] = member
        left[member] -= 1
        if not left[member]:
            del left[member]
    return given


def rebalance(owners: Mapping[int, str], members: Collection[str], shards: int) -> dict[int, str]:
    """Return who owns each shard once all members have their share.

    Whoever owns more than its share gives up its weakest ties, and what nobody owns goes to who ranks highest among
    those that lack some: as few shards move as the shares allow.

    Args:
        owners: the owner of each shard now; an owner that is no member owns nothing.
        members: who takes part.
        shards: how many there are.
    """
    settled: dict[int, str] = {}
    room = shares(members, shards)
    for member in room:
        mine = [shard for shard, owner in owners.items() if owner == member]
        kept = sorted(mine, key=lambda shard, member=member: -weight(member, shard))[: room[member]]  # type: ignore[misc]  # mypy cannot infer a lambda with a default.
        settled |= dict.fromkeys(kept, member)
        room[member] -= len(kept)
    return settled | assignment((shard for shard in range(shards) if shard not in settled), room)
