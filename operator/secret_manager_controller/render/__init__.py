"""Turn a snapshot into plaintext entries: raw profile files, kustomize builds."""
