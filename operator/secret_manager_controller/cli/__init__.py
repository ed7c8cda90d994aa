"""The msmctl command, one module a verb."""
