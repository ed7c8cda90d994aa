"""Keep cloud secret stores equal to the SOPS-encrypted secrets in Git."""
