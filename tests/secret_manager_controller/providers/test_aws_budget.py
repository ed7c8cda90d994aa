"""What an account bears is shared by all who log in to it, and one that throttles slows nobody else down."""

from pathlib import Path

import pytest

from secret_manager_controller.errors import Reason, RetryableError
from secret_manager_controller.providers import occasion
from secret_manager_controller.providers.aws_budget import AccountBudget, AwsQuotas
from secret_manager_controller.providers.aws_login import AwsAccessKeys, AwsWebIdentity
from secret_manager_controller.providers.budget import Budgets, BudgetSpent
from secret_manager_controller.testing.contract_subject import ME

KEYS, OTHER_KEYS = AwsAccessKeys("AKIAONE", "x"), AwsAccessKeys("AKIATWO", "x")
ARN = "arn:aws:secretsmanager:eu-north-1:123456789012:secret:a-Xy12Zz"
TWO_AT_ONCE = AwsQuotas(writes=8, reads=8)


@pytest.fixture
def budgets():
    return Budgets()


def budget(budgets, login=KEYS, *, place="eu-north-1"):
    return AccountBudget(login, place=place, quotas=TWO_AT_ONCE, budgets=budgets)


def role(account):
    return AwsWebIdentity(f"arn:aws:iam::{account}:role/x", Path("/token"), "smc")


async def spend(account, operation="PutSecretValue"):
    """Take what can be had at once, then say that AWS throttles."""
    await account.take(operation)
    account.slow_down(operation, 3600.0)


@pytest.mark.parametrize("operation", ["PutSecretValue", "UpdateSecretVersionStage"])
async def test_what_has_one_quota_has_one_budget(budgets, operation):
    account = budget(budgets)
    await spend(account)
    with pytest.raises(BudgetSpent, match=r"access key …AONE's new versions in eu-north-1") as raised:
        await account.take(operation)
    assert raised.value.reason is Reason.RATE_LIMITED
    for other in ("CreateSecret", "ListSecrets", "DescribeSecret", "TagResource", "DeleteSecret"):
        await account.take(other)


async def test_two_roles_of_an_account_share_it_and_other_accounts_and_regions_do_not(budgets):
    one = budget(budgets, role("111111111111"))
    await spend(one)
    with pytest.raises(BudgetSpent):
        await budget(budgets, role("111111111111")).take("PutSecretValue")
    await budget(budgets, role("222222222222")).take("PutSecretValue")
    await budget(budgets, role("111111111111"), place="eu-west-1").take("PutSecretValue")


async def test_keys_share_an_account_as_soon_as_it_is_known(budgets):
    one, two = budget(budgets), budget(budgets, OTHER_KEYS)
    for each in (one, two):
        each.learn(None)
        each.learn("arn:of:something else")
        each.learn(ARN)
    await spend(one)
    with pytest.raises(BudgetSpent, match="account 123456789012"):
        await two.take("PutSecretValue")


async def test_throttling_of_one_account_is_not_asked_again_at_once_and_slows_no_other(aws, make_provider, budgets):
    provider = make_provider(budgets=budgets)
    aws.fail("ListSecrets", "ThrottlingException", 400, times=9, retry_after=3600.0)
    with pytest.raises(RetryableError) as raised:
        await provider.observe([], mark=ME)
    assert (raised.value.reason, raised.value.retry_after) == (Reason.RATE_LIMITED, 3600.0)
    aws.clear_faults()
    aws.clear_calls()
    with pytest.raises(BudgetSpent):
        await provider.observe([], mark=ME)
    assert aws.calls() == []
    other = make_provider(budgets=budgets, login=aws.add_access_key("AKIAOTHER", "x"))
    await other.observe([], mark=ME)


async def test_requests_are_counted_for_the_reconcile_that_made_them(aws, make_provider):
    provider = make_provider()
    with occasion.of_reconcile() as first:
        await provider.observe([], mark=ME)
    with occasion.of_reconcile() as second:
        aws.fail("ListSecrets", "InternalServiceError")
        await provider.observe(["absent"], mark=ME)
    await provider.observe([], mark=ME)
    assert (first.requests, second.requests) == (1, 3)
