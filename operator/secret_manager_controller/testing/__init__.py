"""Fakes and servers that stand in for the real parts; users may import them too."""
