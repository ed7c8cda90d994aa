"""Host names, and the names that they are allowed by."""

from __future__ import annotations

from collections.abc import Iterable


def host_matches(host: str, allowed: Iterable[str]) -> bool:
    """Tell whether a host is one of the allowed or below one of them."""
    # Flux writes `source-controller.flux-system.svc.cluster.local.`, with the root's dot.
    name = host.rstrip(".").lower()
    return any(_is_at_or_below(name, suffix.strip(".").lower()) for suffix in allowed)


def _is_at_or_below(name: str, suffix: str) -> bool:
    return bool(suffix) and (name == suffix or name.endswith("." + suffix))
