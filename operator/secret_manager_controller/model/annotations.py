"""The annotations and the finalizer that users and tools set on a SecretManagerConfig."""

from __future__ import annotations

GROUP = "secret-management.microscaler.io"

RECONCILE = f"{GROUP}/reconcile"
"""Any new value asks for a reconcile now; `msmctl reconcile` writes a timestamp."""
CONFIRM_PRUNE = f"{GROUP}/confirm-prune"
"""The revision at which more secrets may be deleted than the bound allows."""
CONFIRM_ROLLBACK = f"{GROUP}/confirm-rollback"
"""The revision to which a verified source may go back."""
DELETION_POLICY = f"{GROUP}/deletion-policy"
"""`Orphan` overrides `spec.deletionPolicy`, so that `msmctl reconcile --force` leaves the store alone."""
TRACEPARENT = f"{GROUP}/traceparent"
"""A W3C trace context that the reconcile continues which the reconcile annotation asks for."""

TRIGGER_ANNOTATIONS = (RECONCILE, CONFIRM_PRUNE, CONFIRM_ROLLBACK, DELETION_POLICY)

FINALIZER = f"{GROUP}/store-cleanup"
"""Ours alone: set only with `deletionPolicy: Delete`; kopf's settings never hear of it."""
