"""Where Git content comes from: resolve a reference to a revision, fetch it as a snapshot.

What belongs here: reading what a source publishes, downloading and unpacking it safely, keeping unpacked snapshots
while they are read. What does not: what the files mean (`render`, `decrypt`), and who may refer to a source
(`tenancy`).
"""
