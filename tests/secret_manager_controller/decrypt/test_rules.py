"""Which values a file's rule says are encrypted."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secret_manager_controller.decrypt.refusal import RefusedError
from secret_manager_controller.decrypt.rules import Expectation, Rule

ENCRYPTED, READABLE, BY_FORM = Expectation.ENCRYPTED, Expectation.READABLE, Expectation.BY_FORM


@pytest.mark.parametrize(
    ("fields", "keys", "expected"),
    [
        ({}, ["a"], ENCRYPTED),
        ({}, ["a_unencrypted"], READABLE),
        ({}, ["a_unencrypted", "b"], READABLE),
        ({"unencrypted_suffix": ""}, ["a_unencrypted"], READABLE),
        ({"unencrypted_suffix": "_p"}, ["a_unencrypted"], ENCRYPTED),
        ({"unencrypted_suffix": "_p"}, ["a_p"], READABLE),
        ({"encrypted_suffix": "_s"}, ["a"], READABLE),
        ({"encrypted_suffix": "_s"}, ["x_s", "a"], ENCRYPTED),
        ({"encrypted_regex": "^(data|stringData)$"}, ["data", "a"], ENCRYPTED),
        ({"encrypted_regex": "^(data|stringData)$"}, ["metadata", "name"], READABLE),
        ({"encrypted_regex": "ata"}, ["metadata"], ENCRYPTED),
        ({"unencrypted_regex": "(?i)^META"}, ["metadata"], READABLE),
        ({"unencrypted_regex": r"\pL"}, ["é"], READABLE),
        ({"unencrypted_regex": "^a"}, ["b"], ENCRYPTED),
        ({"encrypted_comment_regex": "x"}, ["a"], BY_FORM),
        ({"unencrypted_comment_regex": "x"}, ["a"], BY_FORM),
        ({}, [], ENCRYPTED),
    ],
)
def test_a_rule_looks_at_every_key_of_a_path(fields: dict[str, str], keys: list[str], expected: Expectation) -> None:
    assert expected is Rule(fields).expects(keys)


def test_two_rules_are_refused_by_name() -> None:
    with pytest.raises(RefusedError, match="encrypted_suffix and encrypted_regex"):
        Rule({"encrypted_suffix": "a", "encrypted_regex": "b"})


@pytest.mark.parametrize("expression", ["(", "a{1001}", "(?=x)", r"(a)\1", "(((a{100}){100}){100})"])
def test_what_is_not_re2_is_refused(expression: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RefusedError, match="no RE2 expression"):
        Rule({"encrypted_regex": expression})
    assert capfd.readouterr() == ("", "")


def test_an_expression_that_explodes_elsewhere_is_linear() -> None:
    rule = Rule({"encrypted_regex": "^(a+)+$"})
    start = time.perf_counter()
    assert rule.expects(["a" * 4000 + "!"]) is READABLE
    assert time.perf_counter() - start < 0.5


@settings(deadline=None)
@given(st.lists(st.text()), st.text(min_size=1))
def test_a_suffix_and_its_complement_split_all_paths(keys: list[str], suffix: str) -> None:
    encrypted = Rule({"encrypted_suffix": suffix}).expects(keys)
    unencrypted = Rule({"unencrypted_suffix": suffix}).expects(keys)
    assert {encrypted, unencrypted} == {ENCRYPTED, READABLE}
