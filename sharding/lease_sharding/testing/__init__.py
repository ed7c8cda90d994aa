"""Fakes for whoever tests with this package: the API server in memory, virtual time, and a simulation of whole groups.

Nothing here is imported by the package itself.
"""

from lease_sharding.testing.server import FakeLeaseClient, FakeLeaseServer, Network
from lease_sharding.testing.virtual import Actor, VirtualLoop

__all__ = ["Actor", "FakeLeaseClient", "FakeLeaseServer", "Network", "VirtualLoop"]
