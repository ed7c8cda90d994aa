"""Opens stores for objects: one provider for each distinct store and login, shared and closed when long unused."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from secret_manager_controller.controller.secrets import SecretReader
from secret_manager_controller.errors import ConfigError, Reason, RetryableError
from secret_manager_controller.grants import Grants
from secret_manager_controller.model.spec import Spec
from secret_manager_controller.providers.protocol import CallObserver, Provider
from secret_manager_controller.providers.registry import PROVIDERS, Login, store_name
from secret_manager_controller.providers.settings import Environment

MAX_PROVIDERS = 256
"""Most providers kept open; an AWS one takes 0.2 MB beside its threads."""
CLOSE_DELAY = 600.0
"""Seconds before an evicted provider is closed: longer than any reconcile that may still hold it."""


class CachedStores:
    """`Stores` for the controller: credentials come from Secrets, providers are cached by what they log in with."""

    def __init__(self, reader: SecretReader, environment: Environment, on_call: CallObserver) -> None:
        self._reader = reader
        self._environment = environment
        self._on_call = on_call
        self._open: OrderedDict[tuple[str, ...], Provider] = OrderedDict()
        self._retired: dict[asyncio.Task[None], Provider] = {}

    async def open(self, spec: Spec, grants: Grants) -> tuple[Provider, str]:
        """Return the provider for an object's store and login, and the store's name.

        Raises:
            PermanentError: CredentialsUnavailable: the login is incomplete.
            RetryableError: CredentialsUnavailable: its Secret could not be read, or is not there yet.
            ConfigError: NotImplemented: there is no provider for this store.
        """
        factory = PROVIDERS.get(spec.provider.type)
        if factory is None:
            message = f"a store of type {spec.provider.type} is not implemented in this version"
            raise ConfigError(message, reason=Reason.NOT_IMPLEMENTED)
        login, identity = Login(None), "ambient"
        if (grant := grants.credentials) is not None:
            secret = await self._reader.read(grant.namespace, grant.name, unavailable=Reason.CREDENTIALS_UNAVAILABLE)
            if secret is None:
                raise RetryableError(
                    Reason.CREDENTIALS_UNAVAILABLE,
                    f"Secret {grant.namespace}/{grant.name} does not exist; create it, or correct "
                    f"spec.provider.{spec.provider.type}.auth.secretName",
                )
            login, identity = Login(secret.data), f"{grant.namespace}/{grant.name}/{secret.identity}"
        store = store_name(spec.provider)
        key = (store, identity, spec.provider.model_dump_json())
        provider = self._open.get(key)
        if provider is None:
            # No await between the look-up and the insert: two objects never make two.
            provider = factory(spec.provider, login, self._environment, self._on_call)
            self._open[key] = provider
            self._evict()
        self._open.move_to_end(key)
        return provider, store

    async def aclose(self) -> None:
        """Close every provider, also those that wait for it."""
        retired = dict(self._retired)
        for task in retired:
            task.cancel()
        await asyncio.gather(*retired, return_exceptions=True)
        await asyncio.gather(*(provider.aclose() for provider in (*self._open.values(), *retired.values())))
        self._open.clear()

    def _evict(self) -> None:
        while len(self._open) > MAX_PROVIDERS:
            _, provider = self._open.popitem(last=False)
            task = asyncio.create_task(_close_later(provider))
            self._retired[task] = provider
            task.add_done_callback(self._retired.pop)


async def _close_later(provider: Provider) -> None:
    await asyncio.sleep(CLOSE_DELAY)
    await provider.aclose()
