"""JSON lines: the objects of a file, with their line numbers."""

import pytest

from crispedit import jsonl


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_blank_lines_count_and_separators_inside_texts_do_not(tmp_path, encoding):
    file = tmp_path / "x.jsonl"
    file.write_bytes('{"a": "\u2028é"}\r\n\r\n{"a": 2}'.encode(encoding))
    assert list(jsonl.read(file, "numbers")) == [(1, {"a": "\u2028é"}), (3, {"a": 2})]


def test_what_is_wrong_is_named(tmp_path):
    file = tmp_path / "x.jsonl"
    with pytest.raises(ValueError, match=r"x\.jsonl cannot be read \(No such file or directory\): expected numbers"):
        list(jsonl.read(file, "numbers"))
    for content, match in (
        (b'{"a": 1}\n{', r"x\.jsonl: line 2 is not JSON: "),
        (b"\n[1]", r"x\.jsonl: line 2: expected an object, not list"),
        (b'{"a": "\xff"}', r"x\.jsonl is not text: "),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=match):
            list(jsonl.read(file, "numbers"))
