"""Small files that would take much memory or time are refused in one sentence, and quickly."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from simdistill.data.images import open_images
from simdistill.data.prompts import read_prompts
from simdistill.data.rows import MOST_COLUMNS, csv_rows
from simdistill.support.zip_files import SMALL


def png(side=8):
    content = io.BytesIO()
    Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(content, "PNG")
    return content.getvalue()


def zipped(path, listing, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("0.png", png())
        archive.writestr("dataset.json", listing)
    return str(path)


def test_a_listing_that_unpacks_to_a_thousand_times_its_size(tmp_path):
    listing = json.dumps({"labels": [["0.png", 0]], "more": [0] * SMALL})
    with pytest.raises(ValueError, match=r"size of dataset\.json = .*at most 100 times"):
        open_images(zipped(tmp_path / "bomb.zip", listing))
    assert open_images(zipped(tmp_path / "stored.zip", listing, zipfile.ZIP_STORED)).classes == 1
    few = json.dumps({"labels": [["0.png", 0]], "more": [0] * 1000})
    assert open_images(zipped(tmp_path / "small.zip", few)).classes == 1


@pytest.mark.parametrize(("columns", "refused"), [(MOST_COLUMNS, False), (10**6, True)])
def test_columns(columns, refused):
    content = ",".join(["text", *(f"c{k}" for k in range(columns - 1))]).encode() + b"\n" + b"a" + b"," * (columns - 1)
    if refused:
        with pytest.raises(ValueError, match=r"x\.csv: columns = 1000000: must be at most 1,000"):
            next(csv_rows("x.csv", content))
    else:
        assert next(csv_rows("x.csv", content))[1]["text"] == "a"


def test_an_entry_of_an_unknown_compression_is_one_sentence(tmp_path):
    path = tmp_path / "x.zip"
    zipped(path, '{"labels": null}')
    content = bytearray(path.read_bytes())
    for magic, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = content.index(magic)
        content[at + place : at + place + 2] = (99).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"0\.png cannot be read"):
        open_images(str(path)).batch([0])


def test_prompts_in_a_tar_with_an_endless_name(tmp_path):
    head = tarfile.TarInfo("x")
    head.type, head.size = tarfile.XHDTYPE, 2**31
    (tmp_path / "x.tar").write_bytes(head.tobuf(tarfile.GNU_FORMAT) + bytes(2**12))
    with pytest.raises(ValueError, match="2,147,483,648 bytes"):
        read_prompts(tmp_path / "x.tar")
