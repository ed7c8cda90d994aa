"""Adapters to the stores, one module each, behind one protocol."""
