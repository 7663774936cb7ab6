"""Folders and zips as people have them: what is no data is passed over and counted, parts and classes are found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_files import first_values, in_folder, in_zip, png

from simdistill.data.file_names import left_behind, with_suffix
from simdistill.data.images import open_images
from simdistill.data.notes import Notes
from simdistill.data.prompts import read_prompts

LITTER = [
    ".DS_Store", "Thumbs.db", "cat/thumbs.DB", "desktop.ini", "._1.png", "cat/._1.png", "__MACOSX/cat/._1.png",
    "__MACOSX/2.png", "cat/.ipynb_checkpoints/1-checkpoint.png", ".git/x.png", "@eaDir/1.png/SYNOPHOTO_THUMB_M.png",
]  # fmt: skip


@pytest.mark.parametrize("write", [in_folder, in_zip], ids=["folder", "zip"])
def test_litter_is_passed_over_and_counted(tmp_path, write):
    files = {"cat/1.png": png(1), "cat/2.png": png(2), **dict.fromkeys(LITTER, b"no picture")}
    images = open_images(write(tmp_path / "set.zip", files))
    assert first_values(images) == [1, 2]
    assert images.labels is None  # one folder is no class
    (what,) = images.notes.counts()
    assert images.notes.counts()[what] == len(LITTER) - 1  # __MACOSX counts once
    for kind in ("._* 2", "__MACOSX 1", ".DS_Store 1", ".ipynb_checkpoints 1"):
        assert kind in what


@given(
    st.lists(st.sampled_from(["a", "b.png", "c.txt", "..", ".", ".x", "__MACOSX", "Thumbs.db"]), min_size=1, max_size=4)
)
def test_a_name_is_litter_exactly_if_a_part_of_it_is(parts):
    name = "/".join(parts)
    bad = [part for part in parts if part in (".x", "__MACOSX", "Thumbs.db")]
    found = left_behind(name)
    assert (found is not None) == bool(bad)
    if found is not None:
        assert found.rpartition("/")[2] == bad[0]


def test_what_is_not_read_is_counted_by_suffix(tmp_path):
    files = {"1.png": png(1), "2.TIF": png(2), "3.avif": b"", "a.txt": "", "b.txt": "", "README": ""}
    images = open_images(in_folder(tmp_path, files))
    assert len(images) == 2
    assert images.notes.counts() == {"files passed over (.txt 2, .avif 1, README 1)": 4}
    notes = Notes()
    assert with_suffix((f"{k}.x{k}" for k in range(20)), (".png",), notes) == []
    assert next(iter(notes.counts())).endswith(", …)")


def test_links_are_not_followed(tmp_path):
    (tmp_path / "set").mkdir()
    in_folder(tmp_path / "set", {"1.png": png(1)})
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set")
    images = open_images(tmp_path / "set")
    assert (len(images), images.notes.counts()) == (1, {"files passed over (again 1)": 1})


def test_hidden_files_of_prompts_are_passed_over(tmp_path):
    in_folder(tmp_path, {"a.txt": "a cat", "._a.txt": b"\xff\xfe", ".ipynb_checkpoints/a.txt": "old", "n.md": ""})
    notes = Notes()
    assert read_prompts(tmp_path, notes=notes) == ["a cat"]
    assert notes.counts() == {"files passed over (._* 1, .ipynb_checkpoints 1, .md 1)": 3}


def test_the_folder_itself_may_be_hidden(tmp_path):
    assert len(open_images(in_folder(tmp_path / ".cache" / "set", {"1.png": png(1)}))) == 1


def test_classes_are_guessed_from_folders_and_said(tmp_path):
    images = open_images(
        in_folder(tmp_path, {f"{name}/{k}.png": png(k) for k, name in enumerate(["dog", "cat", "dog"])})
    )
    assert images.labels.tolist() == [0, 1, 1]
    assert images.notes.counts() == {"classes, by folder (cat 1, dog 2)": 2}


def test_train_and_test_are_parts_and_no_classes(tmp_path):
    files = {f"train/{name}/{k}.png": png(k) for k, name in enumerate(["dog", "cat", "dog"])}
    files |= {"test/dog/3.png": png(3), "val/cat/4.png": png(4)}
    images = open_images(in_folder(tmp_path / "a", files))
    assert (first_values(images), images.labels.tolist()) == ([1, 0, 2], [0, 1, 1])
    assert (first_values(images.held_out), images.held_out.labels.tolist()) == ([3], [1])
    assert images.notes.counts() == {
        "images left out, neither in train nor in test": 1,
        "classes, by folder (train/cat 1, train/dog 2)": 2,
        "images of test, as the held-out part of train": 1,
    }
    other = {**files, "test/cow/5.png": png(5)}
    images = open_images(in_folder(tmp_path / "b", other))
    assert images.held_out is None
    assert images.notes.counts()["images of the held-out part left out: its folders are not those of train"] == 2
    plain = {"train/0.png": png(0), "valid/1.png": png(1), "plane/2.png": png(2)}
    images = open_images(in_folder(tmp_path / "c", plain))  # a train and a plane
    assert (images.labels.tolist(), images.held_out) == ([0, 1, 2], None)


def test_images_without_classes_have_parts_too(tmp_path):
    images = open_images(in_zip(tmp_path / "a.zip", {"Train/0.png": png(0), "VAL/1.png": png(1)}))
    assert (first_values(images), first_values(images.held_out)) == ([0], [1])
    assert images.held_out.labels is None
    unlike = open_images(in_zip(tmp_path / "b.zip", {"train/0.png": png(0), "val/1.png": png(1, (5, 4))}))
    with pytest.raises(ValueError, match=r"val/1\.png has 3×4×5"):
        first_values(unlike.held_out)


@pytest.mark.parametrize("write", [in_folder, in_zip], ids=["folder", "zip"])
def test_listings_may_be_larger_than_images_but_not_endless(tmp_path, monkeypatch, write):
    monkeypatch.setattr("simdistill.data.image_files.LARGEST_FILE", 100)
    monkeypatch.setattr("simdistill.data.pictures.LARGEST_FILE", 100)
    monkeypatch.setattr("simdistill.data.image_files.LARGEST_LISTING", 300)
    row = '{"file_name": "1.png", "text": "a cat"}\n'
    path = write(tmp_path / "a.zip", {"1.png": png(1), "metadata.jsonl": row + " " * 200})
    assert open_images(path).captions == ["a cat"]
    path = write(tmp_path / "b.zip", {"1.png": png(1), "metadata.jsonl": row + " " * 300})
    with pytest.raises(ValueError, match=r"metadata\.jsonl = 340: must be at most 1 GiB"):
        open_images(path)
