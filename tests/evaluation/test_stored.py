"""Reference statistics in files: written and read again, EDM's own, and files of something else."""

import numpy as np
import pytest
import torch
from drawn import noise

from simdistill.evaluation.reference import check_reference, stored_reference
from simdistill.evaluation.statistics import Statistics
from simdistill.evaluation.stored import Stored, read_statistics, write_statistics


def test_what_is_written_is_read_again(tmp_path):
    path, x = tmp_path / "ref.npz", noise(30, 4)
    held_out = Statistics.of(noise(12, 4, seed=1))
    write_statistics(path, Stored(Statistics.of(x), held_out, "pixels", "noise", "abc"))
    stored = read_statistics(path)
    assert (stored.extractor, stored.data, stored.inputs, stored.statistics.images) == ("pixels", "noise", "abc", 30)
    for found, expected in ((stored.statistics, Statistics.of(x)), (stored.held_out, held_out)):
        assert torch.equal(found.moments.mean, expected.moments.mean)
        assert torch.equal(found.moments.covariance, expected.moments.covariance)
        assert torch.equal(found.features, expected.features)
    with np.load(path, allow_pickle=False) as file:  # as EDM's evaluation does
        assert file["mu"].dtype == file["sigma"].dtype == np.float64
        np.testing.assert_allclose(file["mu"], x.double().mean(0), rtol=1e-12)
        np.testing.assert_allclose(file["sigma"], np.cov(x.double().numpy().T), rtol=1e-10)
    assert [p.name for p in tmp_path.iterdir()] == ["ref.npz"]


def edms(path, d=5, **arrays):
    np.savez(path, **({"mu": np.zeros(d), "sigma": np.eye(d)} | arrays))
    return path


def test_edms_own_files_serve_for_the_distance(tmp_path):
    stored = read_statistics(edms(tmp_path / "cifar10-32x32.npz"))
    assert (stored.extractor, stored.data, stored.inputs, stored.held_out) == (None, None, None, None)
    assert (stored.statistics.features, stored.statistics.images) == (None, 0)
    reference = stored_reference(tmp_path / "cifar10-32x32.npz", "pixels", (5,))
    assert reference.name == "cifar10-32x32.npz in the features pixels"
    assert reference.measure(Statistics.of(noise(4000, 5))) == {"frechet": pytest.approx(0, abs=0.02)}


class Payload:
    def __reduce__(self):
        return print, ("executed",)


DAMAGED = {
    "absent": "no such file; `simdistill stats DATA --out .*ref.npz` makes one",
    "empty": "not an intact .npz",
    "cut off": "not an intact .npz",
    "page": "not an intact .npz",
    "pickle": "not an intact .npz",
    "objects": "not an intact .npz",
    "one array": "not an intact .npz",
    "no sigma": r"must include mu and sigma; sigma is missing",
    "matrix": r"shape of mu = \[5, 5\]: must be \[dimensions\]",
    "other sizes": r"shape of sigma = \[4, 4\]: must be \[5, 5\], as mu has 5",
    "other features": r"shape of features = \[9, 3\]: must be \[images, 5\]",
    "not finite": r"sigma = 'not finite'",
    "text": r"type of mu = '<U1': must be floating-point numbers",
}


def damaged(kind, path):
    if kind in ("empty", "cut off", "page"):
        whole = edms(path).read_bytes()
        path.write_bytes({"empty": b"", "cut off": whole[:-40], "page": b"<html></html>"}[kind])
    elif kind == "pickle":
        path.write_bytes(b"\x80\x04cbuiltins\nprint\n(S'executed'\ntR.")
    elif kind == "one array":
        with path.open("wb") as file:
            np.save(file, np.zeros(5))
    elif kind != "absent":
        wrong = {
            "objects": {"mu": np.array([Payload()], dtype=object)},
            "no sigma": {},
            "matrix": {"mu": np.eye(5)},
            "other sizes": {"sigma": np.eye(4)},
            "other features": {"features": np.zeros((9, 3), np.float32)},
            "not finite": {"sigma": np.full((5, 5), np.nan)},
            "text": {"mu": np.array(["a"] * 5)},
        }[kind]
        np.savez(path, mu=np.zeros(5)) if kind == "no sigma" else edms(path, **wrong)


@pytest.mark.parametrize("kind", DAMAGED)
def test_files_of_something_else_are_refused(kind, tmp_path, capfd):
    path = tmp_path / "ref.npz"
    damaged(kind, path)
    with pytest.raises(ValueError, match=DAMAGED[kind]) as caught:
        read_statistics(path)
    assert "ref.npz" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "executed" not in capfd.readouterr().out


def test_a_reference_in_other_features_is_refused(tmp_path):
    path = tmp_path / "ref.npz"
    write_statistics(path, Stored(Statistics.of(noise(30, 64)), None, "inception-6726825d", "noise"))
    with pytest.raises(ValueError, match="inception-6726825d: give the weights with --inception"):
        check_reference(str(path), "", (1, 8, 8))
    with pytest.raises(ValueError, match=r"features = 'pixels': must be inception-6726825d, as in .*ref.npz"):
        check_reference(str(path), "pixels", (1, 8, 8))
    with pytest.raises(ValueError, match=r"extractor that it does not name .*Inception-v3"):
        check_reference(str(edms(path)), "", (5,))
    with pytest.raises(ValueError, match=r"dimensions of pixels = 64: must be 5, as in .*ref.npz"):
        check_reference(str(path), "pixels", (1, 8, 8))
    with pytest.raises(ValueError, match=r"nowhere.pt: no such file"):
        check_reference("", "nowhere.pt", (1, 8, 8))
    check_reference("", "", (1, 8, 8))


def test_arrays_that_nobody_asked_for_are_not_read_and_bombs_are_refused(tmp_path):
    path = edms(tmp_path / "more.npz", d=3, unused=np.array(["x"], dtype=object))
    assert read_statistics(path).statistics.moments.mean.shape == (3,)
    np.savez_compressed(tmp_path / "bomb.npz", mu=np.zeros(3), sigma=np.eye(3), features=np.zeros((10**4, 10**3)))
    with pytest.raises(ValueError, match=r"size of features\.npy = 80000128: must be at most 100 times"):
        read_statistics(tmp_path / "bomb.npz")
