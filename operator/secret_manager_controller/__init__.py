"""Keep cloud secret stores equal to the SOPS-encrypted secrets in Git."""

from importlib.metadata import version

__version__ = version("secret-manager-controller")
