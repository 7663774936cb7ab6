"""Captions of image folders in all of Hugging Face's forms, and what is wrong with a listing, by its line."""

import io
import json
import re

import polars as pl
import pytest
from picture_files import in_folder, in_zip, png

from simdistill.data.images import open_images
from simdistill.data.packing import write_zip
from simdistill.data.prompts import read_prompts

NAMES = ["0.png", "1.png", "2.png"]
TEXTS = ["a cat", "Ünï, “quoted”", "a dog"]
PICTURES = {name: png(k) for k, name in enumerate(NAMES)}


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def csv(rows):
    return pl.DataFrame(rows).write_csv().encode()


def parquet(rows):
    content = io.BytesIO()
    pl.DataFrame(rows, strict=False).write_parquet(content)
    return content.getvalue()


def rows(texts=TEXTS, column="text", names=NAMES):
    return [{"file_name": name, column: text} for name, text in zip(names, texts, strict=True)]


@pytest.mark.parametrize("write", [in_folder, in_zip], ids=["folder", "zip"])
@pytest.mark.parametrize("column", ["text", "caption", "prompt"])
@pytest.mark.parametrize(("kind", "form"), [("jsonl", jsonl), ("csv", csv), ("parquet", parquet)])
def test_every_form_of_metadata_is_read(tmp_path, kind, form, column, write):
    files = {**PICTURES, f"metadata.{kind}": form(rows(column=column)[::-1])}
    images = open_images(write(tmp_path / "set.zip", files))
    assert (images.captions, images.notes.counts()) == (TEXTS, {})


@pytest.mark.parametrize("write", [in_folder, in_zip], ids=["folder", "zip"])
def test_metadata_of_a_part_names_images_beside_it(tmp_path, write):
    """Hugging Face's imagefolder has it in train/; one of the root may add to it, and the nearest counts."""
    inner = {f"train/{name}": content for name, content in PICTURES.items()}
    files = {**inner, "train/metadata.csv": csv(rows())}
    assert open_images(write(tmp_path / "a.zip", files)).captions == TEXTS
    root = jsonl([{"file_name": "train/0.png", "text": "other"}, {"file_name": "./test/9.png", "text": "held out"}])
    both = open_images(write(tmp_path / "b.zip", {**files, "test/9.png": png(9), "metadata.jsonl": root}))
    assert (both.captions, both.held_out.captions) == (TEXTS, ["held out"])


@pytest.mark.parametrize("form", [jsonl, parquet])
def test_null_is_no_caption_and_of_several_the_first_is_taken(tmp_path, form):
    kind = form.__name__
    listing = form([{"file_name": n, "text": t} for n, t in zip(NAMES, [["x", "y"], None, ["z"]], strict=True)])
    images = open_images(in_folder(tmp_path / "set", {**PICTURES, f"metadata.{kind}": listing}))
    assert images.captions == ["x", "", "z"]
    told = {"rows with several texts, of which the first is taken": 1, "rows without a text": 1}
    assert images.notes.counts() == told
    assert read_prompts(tmp_path / "set" / f"metadata.{kind}") == ["x", "z"]  # what `encode` makes fits
    write_zip(tmp_path / "again.zip", images)
    again = open_images(tmp_path / "again.zip")
    assert (again.captions, again.notes.counts()) == (["x", "", "z"], {"rows without a text": 1})


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_lines_end_at_line_feeds_only(tmp_path, separator):
    """JSON lets most of these stand in strings as they are; Python's splitlines would cut there."""
    texts = [f"a{separator}cat", "b", "c"]
    lines = (
        jsonl(rows(texts))
        if separator in "\u2028\u2029\x85"
        else json.dumps(rows(texts)[0]).encode() + b"\r\n" + jsonl(rows(texts)[1:])
    )
    for name, content in (("plain", lines), ("with a BOM", b"\xef\xbb\xbf" + lines), ("cut", lines.rstrip())):
        folder = in_folder(tmp_path / name, {**PICTURES, "metadata.jsonl": content})
        assert open_images(folder).captions == ["a cat", "b", "c"]
        assert read_prompts(folder / "metadata.jsonl") == ["a cat", "b", "c"]


def test_a_csv_with_a_bom(tmp_path):
    folder = in_folder(tmp_path, {**PICTURES, "metadata.csv": b"\xef\xbb\xbf" + csv(rows())})
    assert open_images(folder).captions == TEXTS


GOOD = jsonl(rows()[:2]).decode()
THIRD = {  # the third line, and what is said of it
    "in two rows": ('{"file_name": "0.png", "text": "x"}', r": file_name = '0.png': must be in one row only; .*line 1"),
    "no name": ('{"text": "x"}', r": file_name = None: must be the name of an image"),
    "a name that is none": ('{"file_name": 3, "text": "x"}', r": file_name = 3: must be the name"),
    "a number": ('{"file_name": "2.png", "text": 3}', r": text = 3: must be text, a list of texts, or null"),
    "a list of other things": ('{"file_name": "2.png", "text": ["x", 3]}', r": text = \['x', 3\]"),
    "an array": ("[1]", r" = '\[1\]': must be a JSON object"),
    "no JSON": ("{", r": cannot be read \(JSONDecodeError"),
    "half of a pair": ('{"file_name": "2.png", "text": "\\ud83d"}', r": text: .*half of a surrogate pair"),
    "nested deeply": ("[" * 100_000, r": cannot be read \(its JSON is nested too deeply\)"),
    "an endless number": ('{"x": ' + "1" * 5000 + "}", r": cannot be read"),
    "not UTF-8": (b'{"file_name": "2.png", "text": "\xff"}', r": must be UTF-8 text"),
}  # fmt: skip
OF_IMAGES = ("in two rows", "no name", "a name that is none")


@pytest.mark.parametrize("case", THIRD)
def test_what_is_wrong_is_told_with_its_line(tmp_path, case, refused):
    third, said = THIRD[case]
    third = third if isinstance(third, bytes) else third.encode()
    folder = in_folder(tmp_path / "set", {**PICTURES, "metadata.jsonl": jsonl(rows()[:2]) + third})
    line = refused("convert", folder, tmp_path / "x.zip")
    assert re.search(rf"metadata\.jsonl, line 3{said}", line), line
    assert not (tmp_path / "x.zip").exists()
    if case not in OF_IMAGES:  # prompts need no images
        line = refused("encode", folder / "metadata.jsonl", "--encoder", "minilm", "--out", tmp_path / "e")
        assert re.search(rf"metadata\.jsonl, line 3{said.replace(': text', '')}", line), line


def test_an_image_without_a_row(tmp_path):
    folder = in_folder(tmp_path, {**PICTURES, "metadata.jsonl": jsonl(rows()[:2])})
    with pytest.raises(ValueError, match=r"caption of 2\.png = None: must be in metadata\.jsonl or metadata\.csv"):
        open_images(folder)


def test_listings_that_hold_no_captions_are_said(tmp_path):
    labels = csv([{"file_name": name, "label": 1} for name in NAMES])
    images = open_images(in_folder(tmp_path / "a", {**PICTURES, "metadata.csv": labels}))
    assert images.captions is None
    assert images.notes.counts() == {"listings without captions: metadata.csv has file_name, label": 1}
    more = jsonl([*rows(), {"file_name": "9.png", "text": "gone"}])
    images = open_images(in_folder(tmp_path / "b", {**PICTURES, "metadata.jsonl": more, "metadata.csv": labels}))
    assert images.captions == TEXTS
    assert images.notes.counts() == {
        "files passed over (metadata.csv 1)": 1,
        "rows of metadata.jsonl that name no image here": 1,
    }


def test_labels_nested_deeply_are_one_sentence(tmp_path):
    folder = in_folder(tmp_path, {**PICTURES, "dataset.json": "[" * 100_000})
    with pytest.raises(ValueError, match=r"dataset\.json: cannot be read \(its JSON is nested too deeply\)"):
        open_images(folder)
