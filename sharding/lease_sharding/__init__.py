"""Members, shards and fences over Kubernetes Leases; knows nothing of secrets.

What belongs here: who may act for a key, and until when. What must not: anything of what is done with
that right. Neither the controller nor its telemetry is imported from here.
"""
