"""dotenv files."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secret_manager_controller.decrypt.formats.dotenv import Dotenv
from secret_manager_controller.decrypt.refusal import RefusedError

KEYS = st.text(st.characters(exclude_characters="=\n\r", exclude_categories=["Cs"]), min_size=1).filter(
    lambda key: not key.startswith(("#", "\ufeff"))
)
VALUES = st.text(st.characters(exclude_characters="\n\r\\", exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("\n\n# comment\n#\n", {}),
        ("A=b", {"A": "b"}),
        ("A=b\nC==d=\n", {"A": "b", "C": "=d="}),
        ("A=\n", {"A": ""}),
        ("A= b \n B=c\n", {"A": " b ", " B": "c"}),
        ("A=\"b\"\nB='c'\n", {"A": '"b"', "B": "'c'"}),
        (r"A=one\ntwo", {"A": "one\ntwo"}),
        (r"A=one\\ntwo", {"A": "one\\\ntwo"}),
        ("A=b # no comment", {"A": "b # no comment"}),
        ("\ufeffA=b", {"A": "b"}),
        ("A=in\rside", {"A": "in\rside"}),
        ("export A=b", {"export A": "b"}),
    ],
)
def test_a_file_is_read_as_sops_reads_it(text: str, expected: dict[str, str]) -> None:
    assert [expected] == Dotenv().parse(text.encode())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"A=b\r\nC=d\r\n", "line 1 ends with CR LF"),
        (b"A=b\nC=d\r\n", "line 2 ends with CR LF"),
        (b"A=b\n  \n", "line 2 is not of the form KEY=value"),
        (b"A=b\nsecret", "line 2 is not of the form KEY=value"),
        (b"=b", "line 1 has no key"),
        (b"A=b\nA=c", "line 2: the key `A` occurs twice"),
        (b"A=\xff", "byte 2 is not UTF-8"),
        (b"\n".join(b"K%d=" % n for n in range(10_001)), "more than 10000"),
    ],
    ids=range(8),
)
def test_what_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        Dotenv().parse(data)
    assert message in caught.value.message
    assert caught.value.__context__ is None


@settings(deadline=None)
@given(st.dictionaries(KEYS, VALUES))
def test_what_is_written_is_read(entries: dict[str, str]) -> None:
    text = "".join(f"{key}={value}\n" for key, value in entries.items())
    assert [entries] == Dotenv().parse(text.encode())


def test_metadata_is_taken_out() -> None:
    documents = Dotenv().parse(b"A=b\nsops_mac=m\nsops_age__list_0__map_enc=x\\ny\nB=c")
    block = Dotenv().detach_metadata(documents)
    assert block == {"mac": "m", "age": [{"enc": "x\ny"}]}
    assert documents == [{"A": "b", "B": "c"}]
    assert Dotenv().detach_metadata(documents) is None
