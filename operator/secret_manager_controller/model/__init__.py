"""The domain, pure: specs, names, desired and observed state, plans, status.

What belongs here: frozen values and functions that decide. What must not: I/O, a clock, an SDK, telemetry.
"""
