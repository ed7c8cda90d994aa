"""The contract that every provider keeps, for the one of this directory."""

import itertools
from base64 import b64decode, b64encode
from dataclasses import asdict

import pytest
from directory_provider import Directory, DirectoryProvider, Stored

from secret_manager_controller.testing.contract import Lacks, ProviderContract, Subject
from secret_manager_controller.testing.contract_subject import DECLARED, LABEL


class Control:
    """What the suite does to the store behind the provider's back."""

    def __init__(self, path, watched):
        self._store = Directory(path)
        self._watched = watched
        self._numbers = itertools.count()

    def values(self):
        found = {name: self._store.read(name) for name in self._store.names()}
        return {name: b64decode(s.versions[s.current]) for name, s in found.items() if s.current is not None}

    def versions(self, name):
        stored = self._store.read(name)
        return 0 if stored is None else len(stored.versions)

    def mark(self, name):
        stored = self._store.read(name)
        return None if stored is None else stored.owner

    def labels(self, name):
        return self._store.read(name).labels

    def set_label(self, name, key, value):
        stored = self._store.read(name)
        stored.labels[key] = value
        self._store.write(name, stored)

    def put_by_hand(self, name, value, *, mark=None):
        stored = self._store.read(name) or Stored(mark=mark and asdict(mark))
        stored.current = f"by-hand-{next(self._numbers)}"
        stored.versions[stored.current] = b64encode(value).decode()
        self._store.write(name, stored)

    def create_empty(self, name, *, mark=None):
        self._store.write(name, Stored(mark=mark and asdict(mark)))

    def schedule_deletion(self, name):
        raise NotImplementedError("a file is deleted at once")

    def destroy(self, name):
        self._store.remove(name)

    def writes(self):
        return list(self._watched.changes)

    def fail_requests(self, request, *, times, commit):
        raise NotImplementedError("a directory does not fail on demand")

    def clear_faults(self):
        """Do nothing: there are none."""


class TestDirectoryProvider(ProviderContract):
    @pytest.fixture
    async def subject(self, tmp_path):
        store = Directory(tmp_path)
        return Subject(
            DirectoryProvider(store),
            Control(tmp_path, store),
            requests={"create": ["write"], "update": ["write"], "adopt": ["write"], "delete": ["remove"]},
            lacks=frozenset({Lacks.RECOVERY, Lacks.FAULTS}),
            declaring=DirectoryProvider(store, labels={LABEL: DECLARED}),
        )
