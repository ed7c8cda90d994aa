"""Turn SOPS documents and plain files into leaves; every key stays in memory."""
