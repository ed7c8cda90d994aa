"""INI files, as gopkg.in/ini.v1 reads them; the differential test has the real one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secret_manager_controller.decrypt.formats.ini import Ini
from secret_manager_controller.decrypt.refusal import RefusedError

WORDS = st.text("abcXYZ019._-äß", min_size=1).filter(lambda word: word not in ("-", "DEFAULT"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("; c\n# c\n\n  \n", {}),
        ("a=1", {"DEFAULT": {"a": "1"}}),
        ("a=1\n[s]\nb=2", {"DEFAULT": {"a": "1"}, "s": {"b": "2"}}),
        ("[DEFAULT]\na=1\n[s]\n", {"DEFAULT": {"a": "1"}, "s": {}}),
        ("[s]\nx=1\n[DEFAULT]\na=1", {"s": {"x": "1"}, "DEFAULT": {"a": "1"}}),
        ("[a]b] ; c\nk : v = w", {"a]b": {"k": "v = w"}}),
        ("[ s ]\n  k  =  v  ", {" s ": {"k": "v"}}),
        ("[s]\nk = v ; c\nl = #c\nm=", {"s": {"k": "v", "l": "", "m": ""}}),
        ("[s]\nk = `a ; b # c`\nl=`x", None),
        ("[s]\nk = \"a\"\nl='b'\nm=\"a\"b\"\nn=\"", {"s": {"k": "a", "l": "b", "m": '"a"b"', "n": '"'}}),
        ('[s]\nk = """one\ntwo # x\n  three"""  ; c\nl=1', {"s": {"k": "one\ntwo # x\n  three", "l": "1"}}),
        ('[s]\nk = """a\n"""\\\nb""" x', {"s": {"k": 'a\n"""\\\nb'}}),
        ('[s]\nk="""', {"s": {"k": '"""'}}),
        ("[s]\nk = a \\\n  b \\\n c\nl=1", {"s": {"k": "a b c", "l": "1"}}),
        ("[s]\nk = a \\\n\nl=1", {"s": {"k": "a ", "l": "1"}}),
        ("[s]\nk = a \\", {"s": {"k": "a "}}),
        ("[s]\n`k = l` = v\n\"m:n\": w\n\"\"\"o`p\"\"\" = x", {"s": {"k = l": "v", "m:n": "w", "o`p": "x"}}),
        ("[s]\nk = \u00a0v\u2003", {"s": {"k": "v"}}),
        ("[s]\nk = v\x1c", {"s": {"k": "v\x1c"}}),
        ("\ufeff[s]\nk=v", {"s": {"k": "v"}}),
    ],
)  # fmt: skip
def test_a_file_is_read_as_sops_reads_it(text: str, expected: dict[str, dict[str, str]] | None) -> None:
    if expected is None:
        with pytest.raises(RefusedError, match="has not ended"):
            Ini().parse(text.encode())
    else:
        assert [expected] == Ini().parse(text.encode())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[s]\r\nk=v\r\n", "line 1 ends with CR LF"),
        ("[s]\nk=v\nk=w", "line 3: the key `k` occurs twice"),
        ("[s]\n[t]\n[s]", "line 3: the key `s` occurs twice"),
        ("a=1\n[DEFAULT]\nb=2", "the key `DEFAULT` occurs twice"),
        ("[s", "line 1 is not of the form [section]"),
        ("[]", "line 1 is not of the form [section]"),
        ("secret", "line 1 is not of the form key = value"),
        ("=v", "line 1 has no key"),
        ("`` = v", "line 1 has no key"),
        ("- = v", "line 1 has the key `-`"),
        ("`k = v", "line 1 has a key whose quote does not end"),
        ("`k` v", "line 1 is not of the form key = value"),
        ('k = """a', "a quoted value has not ended"),
        ("\n".join(f"k{n}=" for n in range(10_001)), "more than 10000"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        Ini().parse(text.encode())
    assert message in caught.value.message


@settings(deadline=None)
@given(st.dictionaries(WORDS, st.dictionaries(WORDS, WORDS)))
def test_what_is_written_is_read(sections: dict[str, dict[str, str]]) -> None:
    lines = [
        line for name, keys in sections.items() for line in [f"[{name}]", *(f"{k} = {v}" for k, v in keys.items())]
    ]
    assert [sections] == Ini().parse("\n".join(lines).encode())


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"])))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        Ini().parse(text.encode())
    except RefusedError as refused:
        assert refused.message.startswith(("line ", "the key"))


@pytest.mark.parametrize("newline", ["\\n", "\n"], ids=["escaped twice", "as 3.13.0 wrote it"])
def test_metadata_is_taken_out(newline: str) -> None:
    enc = f'"""a{newline}b"""'
    documents = Ini().parse(f"[s]\nk=v\n[sops]\nmac = m\nage__list_0__map_enc = {enc}".encode())
    assert Ini().detach_metadata(documents) == {"mac": "m", "age": [{"enc": "a\nb"}]}
    assert documents == [{"s": {"k": "v"}}]
    assert Ini().detach_metadata(documents) is None
