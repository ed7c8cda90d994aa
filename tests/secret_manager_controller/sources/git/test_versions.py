"""Ranges of versions, as Argo CD reads them."""

import itertools

import pytest

from secret_manager_controller.sources.git.versions import newest_in, parse_version

TAGS = ("v0.2.3", "v0.3.0", "v1.0.0", "1.2.3", "v1.2.10", "v1.3", "v2.0.0-rc.1", "v2.0.0", "v2.1.0", "v3.0.0-beta.2")
OTHERS = ("nightly", "v1.2.3.4", "release-9.9.9", "9.9.9x", "v01.0.0")


@pytest.mark.parametrize(
    ("wanted", "tag"),
    [
        ("*", "v2.1.0"),
        ("x", "v2.1.0"),
        ("1.*", "v1.3"),
        ("1", "v1.3"),
        ("v1.2.*", "v1.2.10"),
        ("1.2.x", "v1.2.10"),
        ("1.2", "v1.2.10"),
        ("1.2.3", "1.2.3"),
        ("~1.2.3", "v1.2.10"),
        ("~1", "v1.3"),
        ("~>1.2", "v1.2.10"),
        ("^1", "v1.3"),
        ("^1.2.3", "v1.3"),
        ("^0.2.3", "v0.2.3"),
        ("^0.2", "v0.2.3"),
        ("^0", "v0.3.0"),
        (">=1.0.0 <1.3.0", "v1.2.10"),
        (">= 1.0.0, < 2.0.0", "v1.3"),
        (">=v1.0.0", "v2.1.0"),
        (">1 <3", "v2.1.0"),
        ("<2", "v1.3"),
        ("<=1.2", "v1.2.10"),
        ("<=2.0.0", "v2.0.0"),
        ("1.0 - 1.2.3", "1.2.3"),
        ("^1.9 || ^2.0", "v2.1.0"),
        ("!=2.1.0", "v2.0.0"),
        ("!=2", "v1.3"),
        (">=2.0.0-rc.0 <2.0.0-rc.9", "v2.0.0-rc.1"),
        (">=3.0.0-0", "v3.0.0-beta.2"),
        (">9", None),
        ("=4", None),
        ("~~~", None),
        ("main", None),
        ("1.2.3.4", None),
        ("", None),
        ("||", None),
        ("1 ||", None),
        ("<" * 300, None),
        ("feature/1.x", None),
    ],
)
def test_a_range_is_its_newest_tag(wanted, tag):
    assert newest_in(wanted, (*TAGS, *OTHERS)) == tag
    assert newest_in(wanted, reversed(TAGS)) == tag


def test_versions_order_as_semver_org_shows():
    ordered = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
    ]
    precedences = [parse_version(text).precedence for text in ordered]
    assert all(lower < higher for lower, higher in itertools.pairwise(precedences))


@pytest.mark.parametrize("tag", ["", "v", "x1.0.0", "1.0.0.0", "1" * 30, "1.0.0-", "1.0.0-a..b"])
def test_what_is_no_version_is_none(tag):
    assert parse_version(tag) is None
