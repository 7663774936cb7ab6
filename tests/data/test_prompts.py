"""Lists of prompts: every kind of file gives the same ones, and bad files say what is wrong."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdistill.data.notes import Notes
from simdistill.data.prompts import read_prompts
from simdistill.data.rows import COLUMNS

TEXTS = ["a red hat", "Ünïcode, “quoted” and, commas", "two words"]


def tar_of(path, members):
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, text in members:
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def txt(path):
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")


def csv(path):
    separator = "\t" if path.suffix == ".tsv" else ","
    pl.DataFrame({"id": [1, 2, 3], "caption": TEXTS}).write_csv(path, separator=separator)


def parquet(path):
    """As the Parquet conversion of SAM-LLaVA-Captions10M has them."""
    pl.DataFrame({"__key__": ["sa_1", "sa_2", "sa_3"], "txt": TEXTS}).write_parquet(path)


def jsonl(path):
    path.write_text("".join(json.dumps({"text": t, "id": 0}) + "\n\n" for t in TEXTS), encoding="utf-8")


def texts_in_a_tar(path):
    """As SAM-LLaVA-Captions10M's one archive has them, a file a picture, with others between."""
    tar_of(path, [("captions/sa_1.txt", TEXTS[0]), ("a.jpg", "pixels"), ("sa_2.txt", TEXTS[1]), ("sa_3.txt", TEXTS[2])])


def texts_beside_metadata(path):
    """As CC12M's shards have them: the caption in a .txt, and other facts in a .json."""
    facts = json.dumps({"url": "x", "width": 3})
    tar_of(
        path, [(f"{i}.{kind}", content) for i, t in enumerate(TEXTS) for kind, content in (("txt", t), ("json", facts))]
    )


def json_in_a_tar(path):
    """As webdataset's shards may."""
    tar_of(path, [(f"{i:04d}.json", json.dumps({"caption": t, "url": "x"})) for i, t in enumerate(TEXTS)])


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("p.txt", txt), ("p.csv", csv), ("p.tsv", csv), ("p.parquet", parquet), ("p.jsonl", jsonl), ("p.ndjson", jsonl),
        ("p.tar", texts_in_a_tar), ("p.tar.gz", texts_in_a_tar), ("p.tgz", json_in_a_tar), ("s-0.tar", json_in_a_tar),
        ("s-1.tar", texts_beside_metadata),
    ],
)  # fmt: skip
def test_every_kind_of_file(tmp_path, name, write):
    write(tmp_path / name)
    assert read_prompts(tmp_path / name) == TEXTS


def test_a_folder_has_all_its_files_by_name(tmp_path):
    (tmp_path / "b.txt").write_text("second\n")
    (tmp_path / "a.jsonl").write_text('{"prompt": "first"}\n')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.txt").write_text("third\nfirst\n")
    (tmp_path / "notes.md").write_text("not a prompt")
    assert read_prompts(tmp_path) == ["first", "second", "third"]


@given(lines=st.lists(st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=12), min_size=1))
def test_each_once_in_order_and_never_blank(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "p.txt"
    path.write_text("\n".join([*lines, "last"]), encoding="utf-8")
    expected = list(dict.fromkeys(text for line in [*lines, "last"] if (text := " ".join(line.split()))))
    assert read_prompts(path) == expected


def test_a_column_by_its_name(tmp_path):
    pl.DataFrame({"prompt": ["short"], "long": ["a long one"]}).write_parquet(tmp_path / "p.parquet")
    assert read_prompts(tmp_path / "p.parquet", "long") == ["a long one"]
    assert read_prompts(tmp_path / "p.parquet") == ["short"]
    assert COLUMNS[0] == "prompt"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b"\n  \n", "the number of prompts = 0: must be at least 1"),
        ("p.txt", b"\xff\xfe\x00", "must be UTF-8 text"),
        ("p.csv", b"id,name\n1,2\n", "none of prompt, caption, text, txt among id, name"),
        ("p.jsonl", b"{\n", "cannot be read (JSONDecodeError"),
        ("p.jsonl", b"[1]\n", "line 1 = '[1]': must be a JSON object"),
        ("p.jsonl", b'{"text": 3}\n', "line 1 = 3: must be text"),
        ("p.parquet", b"PAR1", "cannot be read ("),
        ("p.tar", b"no archive", "cannot be read (ReadError"),
        ("p.tar.gz", gzip.compress(b"x" * 600, mtime=0)[:-9], "cannot be read ("),
        ("p.tar.gz", gzip.compress(b"", mtime=0), "cannot be read (ReadError"),
        ("p.docx", b"x", "must be one of .txt, .csv"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"(?s).*") as error:
        read_prompts(tmp_path / name)
    assert message in str(error.value), error.value


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_prompts(tmp_path / "nowhere.txt")
    with pytest.raises(ValueError, match="no prompts in it"):
        read_prompts(tmp_path)


def test_numbers_are_no_prompts(tmp_path):
    pl.DataFrame({"text": [1, 2]}).write_parquet(tmp_path / "p.parquet")
    with pytest.raises(ValueError, match="column text = Int64: must be of text"):
        read_prompts(tmp_path / "p.parquet")


def test_the_papers_own_prompts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cactus, egg, baby = read_prompts(Path("figure-3"))
    assert cactus == "A small cactus with a happy face in the Sahara desert."
    assert baby == "Baby playing with toys in the snow."
    assert egg.startswith("An image of a jade green and gold coloured Fabergé egg, 16k resolution, highly detailed, ")
    assert egg.endswith(", intricate details, highly detailed, by greg rutkowski.")
    assert len(egg.split(", ")) == 21
    assert len(egg.split()) == 56
    (tmp_path / "figure-3").mkdir()  # what is there goes first
    txt(tmp_path / "figure-3" / "own.txt")
    assert read_prompts(Path("figure-3")) == TEXTS


def img2dataset(path, captions):
    """As img2dataset writes shards: of each key a picture, its caption, and a .json with the caption again."""
    members = []
    for k, text in enumerate(captions):
        facts = json.dumps({"caption": text, "url": "x", "key": f"{k:09d}"})
        members += [(f"{k:09d}.jpg", "pixels"), (f"{k:09d}.txt", text or ""), (f"{k:09d}.json", facts)]
    return tar_of(path, members)


def test_a_key_of_a_tar_has_one_prompt(tmp_path):
    notes = Notes()
    path = img2dataset(tmp_path / "0.tar", [TEXTS[0], None, TEXTS[1], TEXTS[0]])
    assert read_prompts(path, repeated=True, notes=notes) == [TEXTS[0], TEXTS[1], TEXTS[0]]
    assert notes.counts() == {"files passed over (.jpg 4)": 4, "rows without a text": 1}
    assert read_prompts(path, "caption", repeated=True) == [TEXTS[0], TEXTS[1], TEXTS[0]]
    assert read_prompts(path, notes=notes) == TEXTS[:2]
    assert notes.counts()["texts repeated, each of which counts once"] == 1


def test_other_members_of_a_tar(tmp_path):
    members = [
        ("a/._1.txt", "\x00"),
        ("__MACOSX/a/1.txt", "no"),
        ("a/1.x.txt", "one"),
        ("b/1.txt", "two"),
        ("1.2.txt", "3"),
    ]
    members += [("1.3.txt", "4"), ("long.txt", "x" * 100_001), ("c.json", json.dumps({"caption": ["first", "second"]}))]
    notes = Notes()
    assert read_prompts(tar_of(tmp_path / "x.tar", members), notes=notes) == ["one", "two", "3", "4", "first"]
    assert notes.counts()["files passed over (._* 1, __MACOSX 1, longer than 100 kB 1)"] == 3


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_nulls_are_passed_over_and_counted(tmp_path, kind):
    table, path, notes = pl.DataFrame({"id": [1, 2, 3], "text": ["a", None, " "]}), tmp_path / f"p.{kind}", Notes()
    {"jsonl": table.write_ndjson, "parquet": table.write_parquet, "csv": table.write_csv}[kind](path)
    assert read_prompts(path, notes=notes) == ["a"]
    assert notes.counts() == {"rows without a text": 2}


def test_half_of_a_surrogate_pair_is_refused_by_its_line(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"text": "a"}\n\n{"text": "b \\udc80"}\n')
    with pytest.raises(ValueError, match=r"p\.jsonl, line 3: its text has half of a surrogate pair"):
        read_prompts(tmp_path / "p.jsonl")
