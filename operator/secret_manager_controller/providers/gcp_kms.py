"""Google Cloud KMS: unwraps data keys of SOPS files, with the login of a provider."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from secret_manager_controller.errors import PermanentError, RetryableError
from secret_manager_controller.providers.calls import Requests, RetryPolicy
from secret_manager_controller.providers.gcp_api import Api, Connection, Message, checksum
from secret_manager_controller.providers.gcp_errors import EXPIRED, NOT_FOUND, PRECONDITION, GcpRefusal
from secret_manager_controller.providers.gcp_login import GCP_KEY, GcpEndpoints
from secret_manager_controller.providers.gcp_tokens import Tokens
from secret_manager_controller.providers.kms import ciphertext_of, not_now, refused
from secret_manager_controller.providers.protocol import CallObserver

_DENIED, _ANOTHER = "PERMISSION_DENIED", "INVALID_ARGUMENT"


@functools.cache
def _api() -> Api:
    # The SDK is imported when first used: few objects need it.
    from google.cloud.kms_v1.types import service  # noqa: PLC0415

    messages = {"Decrypt": (service.DecryptRequest.pb(), service.DecryptResponse.pb())}
    return Api("google.cloud.kms.v1.KeyManagementService", messages)


class GcpKms:
    """Cloud KMS for one login; a `KeyService`.

    Args:
        tokens: of the login.
        login: how messages name it.
        endpoints: where Cloud KMS is.
        on_call: told of every request.
        retries: how often a request is made.
    """

    def __init__(
        self, tokens: Tokens, *, login: str, endpoints: GcpEndpoints, on_call: CallObserver, retries: RetryPolicy
    ) -> None:
        self._tokens = tokens
        self._login = login
        url = endpoints.kms or f"https://cloudkms.{endpoints.universe}"
        # Not a store's requests, so no project's budget: a data key is asked for once in a quarter of an hour.
        self._requests = Requests("gcp", place=f"kms {url}", on_call=on_call, retries=retries)
        self._url, self._roots = url, endpoints.roots
        self._connection: Connection | None = None

    @property
    def kind(self) -> str:
        """The field of SOPS' metadata."""
        return "gcp_kms"

    async def unwrap(self, key: str, wrapped: str, context: Mapping[str, str]) -> bytes:
        """Return what a key has encrypted; see `KeyService.unwrap`. SOPS gives Google's keys no context."""
        if GCP_KEY.fullmatch(key) is None:
            raise refused("is no resource name of a Cloud KMS key")
        if context:
            raise refused("has an encryption context, which Cloud KMS does not know")
        ciphertext = ciphertext_of(wrapped)
        if self._connection is None:
            self._connection = Connection(self._url, roots=self._roots, api=_api())
        request, _ = _api().requests["Decrypt"]
        message = request(name=key, ciphertext=ciphertext, ciphertext_crc32c={"value": checksum(ciphertext)})
        token = await self._tokens.current()
        outcome = await self._decrypt(message, token)
        if isinstance(outcome, GcpRefusal) and outcome.code == EXPIRED:
            outcome = await self._decrypt(message, await self._tokens.after(token))
        if isinstance(outcome, GcpRefusal):
            raise self._told(outcome)
        return bytes(outcome.plaintext)

    async def aclose(self) -> None:
        """Wait for requests under way, then close the connection."""
        await self._requests.aclose()
        if self._connection is not None:
            self._connection.close()

    async def _decrypt(self, message: Message, token: str) -> Message | GcpRefusal:
        connection = self._connection
        assert connection is not None  # There is one before anything is sent.

        def ask() -> Message | GcpRefusal:
            answer = connection.ask("Decrypt", message, token)
            if isinstance(answer, GcpRefusal) or answer.plaintext_crc32c.value == checksum(answer.plaintext):
                return answer
            return GcpRefusal("DATA_LOSS")

        return await self._requests.attempt("Decrypt", ask)

    def _told(self, refusal: GcpRefusal) -> PermanentError | RetryableError:
        if refusal.passing:
            return not_now("Cloud KMS", refusal.code, retry_after=refusal.retry_after)
        if refusal.code == _DENIED:
            return refused(
                f"does not exist or is refused to {self._login}; grant it cloudkms.cryptoKeyVersions.useToDecrypt on "
                "the key: roles/cloudkms.cryptoKeyDecrypter has it"
            )
        if refusal.code == _ANOTHER:
            return refused("did not encrypt this data key")
        if refusal.code in {NOT_FOUND, PRECONDITION}:
            return refused(f"does not exist or is disabled ({refusal.code}); enable it, or encrypt for another key")
        return refused(f"was not used: Google answered {refusal.code}")
