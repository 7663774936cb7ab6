"""Archives are read as tarfile reads them, in bounded memory."""

import io
import tarfile

import pytest

from simdistill.support import tar_files
from simdistill.support.tar_files import open_tar


def archive(path, members, mode="w:gz", **options):
    with tarfile.open(path, mode, **options) as file:
        for name, content in members.items():
            head = tarfile.TarInfo(name)
            head.size = len(content)
            file.addfile(head, io.BytesIO(content))
    return path


def contents(path):
    with open_tar(path) as file:
        return {member.name: file.extractfile(member).read() for member in file}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_what_tarfile_writes_comes_back(tmp_path, mode, form):
    members = {"a.txt": b"one", "folder/" + "b" * 300 + ".json": b"{}", "é.bin": bytes(range(256)) * 100}
    assert contents(archive(tmp_path / "x.tar", members, mode, format=form)) == members


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_name_without_end_is_refused(tmp_path, kind):
    path = tmp_path / "x.tar"
    head = tarfile.TarInfo("x")
    head.type, head.size = kind, 3 * 2**30
    path.write_bytes(head.tobuf(tarfile.GNU_FORMAT) + bytes(2**16))
    with pytest.raises(ValueError, match="3,221,225,472 bytes, more than 1,048,576"):
        contents(path)


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_files, "ROOM", 2**20)
    small = archive(tmp_path / "small.tar.gz", {"a": bytes(2**19)})
    assert len(contents(small)["a"]) == 2**19
    with pytest.raises(ValueError, match="unpacks to more than"):
        contents(archive(tmp_path / "bomb.tar.gz", {"a": bytes(2**24)}))
    assert len(contents(archive(tmp_path / "plain.tar", {"a": bytes(2**24)}, "w"))["a"]) == 2**24
