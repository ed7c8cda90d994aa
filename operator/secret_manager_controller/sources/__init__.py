"""Where Git content comes from: resolve a reference to a revision, fetch it as a snapshot."""
