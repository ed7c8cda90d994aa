"""Metrics, traces and logs of a controller; knows neither its shards nor its secrets."""
