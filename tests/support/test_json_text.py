"""JSON of strangers: the value, or one sentence that says where it stands."""

import json

import pytest

from simdistill.support.json_text import LARGEST, json_object, json_value, read_json


@pytest.mark.parametrize("value", [{"a": [1, None, "é\u2028"]}, [], 3.5, "text", None])
def test_values_come_back(value):
    text = json.dumps(value, ensure_ascii=False)
    assert (
        json_value("x", text)
        == json_value("x", text.encode())
        == json_value("x", b"\xef\xbb\xbf" + text.encode())
        == value
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"\xff\xfe", "UTF-8"),
        (b"", "cannot be read"),
        (b'{"a": 1', "cannot be read"),
        (b"[1, 2]", "a JSON object"),
        (b"null", "a JSON object"),
        (b"1" * 10_000, "cannot be read"),  # an integer of more digits than Python converts
    ],
)
def test_anything_else_is_one_sentence(tmp_path, content, said):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    for read in (lambda: json_object(str(path), content), lambda: read_json(path)):
        with pytest.raises(ValueError, match=said) as caught:
            read()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_large_file_is_not_read(tmp_path):
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(ValueError, match=f"{LARGEST + 1}: must be at most"):
        read_json(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_json(tmp_path / "missing.json")
