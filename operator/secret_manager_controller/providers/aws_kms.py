"""AWS KMS: unwraps data keys of SOPS files, with the login of a provider."""

from __future__ import annotations

from collections.abc import Mapping

from secret_manager_controller.errors import PermanentError, RetryableError
from secret_manager_controller.providers import aws_clients
from secret_manager_controller.providers.aws_calls import Answer, Client, Requests
from secret_manager_controller.providers.aws_errors import EXPIRED, Refusal
from secret_manager_controller.providers.aws_keys import LoginKeys
from secret_manager_controller.providers.aws_login import KEY_ARN, AwsAccessKeys
from secret_manager_controller.providers.calls import RetryPolicy
from secret_manager_controller.providers.kms import ciphertext_of, not_now, refused
from secret_manager_controller.providers.protocol import CallObserver

_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
_ANOTHER = frozenset({"IncorrectKeyException", "InvalidCiphertextException"})
_UNUSABLE = frozenset({"DisabledException", "KMSInvalidStateException", "KeyUnavailableException", "NotFoundException"})


class AwsKms:
    """The KMS of every region, for one login; a `KeyService`.

    Args:
        keys: what requests are signed with.
        login: how messages name it.
        endpoint_url: where KMS is, or None for AWS's own address in the key's region.
        on_call: told of every request.
        retries: how often a request is made.
    """

    def __init__(
        self,
        keys: LoginKeys,
        *,
        login: str,
        endpoint_url: str | None,
        on_call: CallObserver,
        retries: RetryPolicy,
    ) -> None:
        self._keys = keys
        self._login = login
        self._endpoint_url = endpoint_url
        self._on_call = on_call
        self._retries = retries

    @property
    def kind(self) -> str:
        """The field of SOPS' metadata."""
        return "kms"

    async def unwrap(self, key: str, wrapped: str, context: Mapping[str, str]) -> bytes:
        """Return what a key has encrypted; see `KeyService.unwrap`."""
        arn = KEY_ARN.fullmatch(key)
        if arn is None:
            raise refused("is no ARN of a KMS key")
        parameters = {"KeyId": key, "CiphertextBlob": ciphertext_of(wrapped), "EncryptionContext": dict(context)}
        keys = await self._keys.current()
        outcome = await self._decrypt(arn[1], parameters, keys)
        if isinstance(outcome, Refusal) and outcome.code in EXPIRED:
            others = await self._keys.after(keys)
            if others is not None:
                outcome = await self._decrypt(arn[1], parameters, others)
        if isinstance(outcome, Refusal):
            raise self._told(outcome)
        return bytes(outcome["Plaintext"])

    async def _decrypt(self, region: str, parameters: Mapping[str, object], keys: AwsAccessKeys) -> Answer | Refusal:
        def client() -> Client:
            return aws_clients.SHARED_CLIENTS.of("kms", region=region, endpoint_url=self._endpoint_url)

        # Not a store's request, so no store's budget: a data key is asked for once in a quarter of an hour.
        requests = Requests(place=f"kms {self._endpoint_url or region}", on_call=self._on_call, retries=self._retries)
        return await requests.make(client, "Decrypt", parameters, keys=keys)

    def _told(self, refusal: Refusal) -> PermanentError | RetryableError:
        if refusal.passing:
            return not_now("AWS KMS", refusal.code, retry_after=refusal.retry_after)
        if refusal.code in _DENIED:
            return refused(f"is refused to {self._login} ({refusal.code}); grant it kms:Decrypt on the key")
        if refusal.code in _ANOTHER:
            return refused(f"did not encrypt this data key, or with another encryption context ({refusal.code})")
        if refusal.code in _UNUSABLE:
            return refused(f"does not exist or cannot be used ({refusal.code}); enable it, or encrypt for another key")
        return refused(f"was not used: AWS answered {refusal.code}")
