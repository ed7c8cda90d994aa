"""Git repositories: which may be reached and how to log in, their refs, and one revision of them as an archive."""
