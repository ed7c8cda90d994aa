"""How many requests an AWS account bears: its quotas in one region, shared by all who log in to it.

https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from secret_manager_controller.providers.aws_login import AwsAccessKeys, AwsLogin
from secret_manager_controller.providers.budget import Budget, Budgets

PATIENCE = 60.0  # Seconds that a request waits for the budget; a reconcile has five minutes.
THROTTLED_REST = 1.0  # Seconds without requests after AWS throttled all the same; it names none.

# Shares of a quota, which counts by the second: in the long run, and at once after a rest. The rest is for others.
STEADY, BURST = 0.7, 0.25

_WRITES: Mapping[str, str] = {
    "CreateSecret": "new secrets",
    "DeleteSecret": "deletions",
    "PutSecretValue": "new versions",  # These three have one quota together, as have the two of tags.
    "RestoreSecret": "restorations",
    "TagResource": "tags",
    "UntagResource": "tags",
    "UpdateSecret": "new versions",
    "UpdateSecretVersionStage": "new versions",
}
_READS: Mapping[str, str] = {"BatchGetSecretValue": "batches of values", "ListSecrets": "listings"}
# DescribeSecret and GetSecretValue have 10,000 a second: more than one process can make.

_ARN_ACCOUNT = re.compile(r"arn:[a-z-]+:[a-z]+:[a-z0-9-]*:([0-9]{12}):")


@dataclass(frozen=True, slots=True)
class AwsQuotas:
    """What an account allows in a region, in requests a second of each kind."""

    writes: int = 50
    reads: int = 100


class AccountBudget:
    """The budgets of one login's account in one region.

    Whose account access keys are of is not told by them: until an answer names it, they are taken for an account of
    their own.

    Args:
        login: whose account it is.
        place: the region, or the endpoint.
        quotas: what the account allows there.
        budgets: shared by all who use the account.
    """

    def __init__(self, login: AwsLogin, *, place: str, quotas: AwsQuotas, budgets: Budgets) -> None:
        if isinstance(login, AwsAccessKeys):
            self._account, self._known = login.title, False
        else:
            self._account, self._known = f"account {login.role_arn.split(':')[4]}", True
        self._place = place
        self._quotas = quotas
        self._budgets = budgets
        self._held: dict[str, Budget] = {}

    def learn(self, arn: str | None) -> None:
        """Take the account from the ARN of one of its secrets."""
        if self._known or arn is None:
            return
        found = _ARN_ACCOUNT.match(arn)
        if found is not None:
            self._account, self._known = f"account {found.group(1)}", True
            self._held.clear()

    async def take(self, operation: str) -> None:
        """Wait until the account bears a request.

        Raises:
            BudgetSpent: that would take too long.
        """
        budget = self._of(operation)
        if budget is not None:
            await budget.take(within=PATIENCE)

    def slow_down(self, operation: str, seconds: float | None) -> None:
        """Make no request of this kind for a while: AWS asks for fewer."""
        budget = self._of(operation)
        if budget is not None:
            budget.slow_down(THROTTLED_REST if seconds is None else seconds)

    def _of(self, operation: str) -> Budget | None:
        if operation in _WRITES:
            kind, quota = _WRITES[operation], self._quotas.writes
        elif operation in _READS:
            kind, quota = _READS[operation], self._quotas.reads
        else:
            return None
        if kind not in self._held:
            title = f"AWS {self._account}'s {kind} in {self._place}"
            self._held[kind] = self._budgets.of(title, per_minute=60 * quota * STEADY, burst=quota * BURST)
        return self._held[kind]
