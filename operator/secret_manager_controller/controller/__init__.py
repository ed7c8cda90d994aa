"""Watch, queue, reconcile, write status: everything that speaks to the API server."""
