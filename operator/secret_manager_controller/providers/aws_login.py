"""The ways to log in to AWS, and where it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

KEY_ARN = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]+):[0-9]{12}:(?:key|alias)/[A-Za-z0-9/_-]+")
"""A KMS key; its group is the region. https://docs.aws.amazon.com/kms/latest/developerguide/concepts.html#key-id-key-ARN"""


@dataclass(frozen=True, slots=True)
class AwsAccessKeys:
    """The keys of an IAM user, or of a session that somebody else renews."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)

    @property
    def title(self) -> str:
        """How messages name the login; an access key id is told by its end, as the AWS console's lists do."""
        return f"access key …{self.access_key_id[-4:]}"


@dataclass(frozen=True, slots=True)
class AwsWebIdentity:
    """A role that the pod's service account may assume (IAM roles for service accounts).

    Attributes:
        role_arn: e.g. `arn:aws:iam::123456789012:role/secrets`.
        token_file: the token that the kubelet projects and replaces.
        session_name: names the controller in CloudTrail: 2 to 64 of `A-Za-z0-9_+=,.@-`.
    """

    role_arn: str
    token_file: Path
    session_name: str

    @property
    def title(self) -> str:
        """How messages name the login."""
        return f"role {self.role_arn}"


@dataclass(frozen=True, slots=True)
class AwsAssumedRole:
    """A role that access keys may assume.

    Attributes:
        role_arn: e.g. `arn:aws:iam::123456789012:role/secrets`.
        keys: who assumes it.
        session_name: as in `AwsWebIdentity`.
    """

    role_arn: str
    keys: AwsAccessKeys
    session_name: str

    @property
    def title(self) -> str:
        """How messages name the login."""
        return f"role {self.role_arn}"


AwsLogin = AwsAccessKeys | AwsWebIdentity | AwsAssumedRole


@dataclass(frozen=True, slots=True)
class AwsEndpoints:
    """Addresses of the services, e.g. of VPC endpoints; None is AWS's own in the region."""

    secretsmanager: str | None = None
    sts: str | None = None
    kms: str | None = None
