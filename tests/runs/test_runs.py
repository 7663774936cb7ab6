"""A run's folder: it is not clobbered, and a line that a crash cut short is left out."""

import pytest

from simdistill.runs.folder import RunFolder


def test_run_folders_are_not_clobbered(tmp_path):
    run = RunFolder.create(tmp_path / "run", {"verb": "distill", "seed": 1})
    assert run.configuration() == {"verb": "distill", "seed": 1}
    (run.path / "precious").write_text("x")
    with pytest.raises(ValueError, match=r"--out = .*: exists; give another --out, --overwrite it"):
        RunFolder.create(run.path, {"verb": "distill", "seed": 2})
    assert (run.path / "precious").exists()
    assert run.configuration()["seed"] == 1
    RunFolder.create(run.path, {"verb": "distill", "seed": 2}, overwrite=True)
    assert not (run.path / "precious").exists()

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text('title = "somebody else\'s"')
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="not a run's folder, so it is not overwritten"):
        RunFolder.create(tmp_path / "home", {"verb": "distill"}, overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").exists()
    with pytest.raises(ValueError, match="is a file"):
        RunFolder.create(tmp_path / "home" / "thesis.tex", {"verb": "distill"}, overwrite=True)
    with pytest.raises(ValueError, match="not a run's folder"):
        RunFolder.open(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_gone_on_with_is_told_with_the_remedy(tmp_path):
    run = RunFolder.with_config(tmp_path / "run", {"verb": "distill", "seed": 1})
    assert RunFolder.with_config(run.path, {"verb": "distill", "seed": 1}) == run
    assert RunFolder.with_config(run.path, {"verb": "distill"}) == run
    for other in ({"verb": "distill", "seed": 2}, {"verb": "distill", "batch": 8}):
        with pytest.raises(ValueError, match="was made with other settings; delete it, or give another --out"):
            RunFolder.with_config(run.path, other)
    run.log_metrics({"iteration": 1})
    remedy = f"{run.path}: damaged or not a run's folder"
    run.config.write_text("seed = ")
    with pytest.raises(ValueError, match=f"{remedy}; .*config.toml: cannot be read as TOML"):
        RunFolder.with_config(run.path, {"verb": "distill"})
    run.config.unlink()
    with pytest.raises(ValueError, match=rf"{remedy}; .*\(no config.toml in it\)"):
        RunFolder.with_config(run.path, {"verb": "distill"})


def test_a_metrics_line_that_a_crash_cut_short_is_left_out(tmp_path):
    run = RunFolder.create(tmp_path / "run", {"verb": "distill"})
    run.log_metrics({"iteration": 1})
    run.log_metrics({"iteration": 2})
    with run.metrics.open("a") as file:
        file.write('{"iteration": 3, "lo')
    assert run.read_metrics() == [{"iteration": 1}, {"iteration": 2}]
    run.forget_after(1)
    assert run.metrics.read_text() == '{"iteration": 1}\n'
