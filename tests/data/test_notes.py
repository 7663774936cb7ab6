"""What is said of files that were read: each once, in the order in which it was seen, and in English."""

from simdistill.data.notes import Notes


def test_each_file_counts_once_and_one_is_singular(capsys):
    notes, other = Notes(), Notes()
    for name in ("a", "b", "a"):
        notes.add("images of 16 bits, scaled to 8", name)
    notes.count("rows without a text", 1200)
    for name in ("b", "c"):
        other.add("images of 16 bits, scaled to 8", name)
    other.add("images turned upright by EXIF", "c")
    notes.include(other)
    notes.pass_over(".txt")
    notes.tell("photos")
    assert capsys.readouterr().err.splitlines() == [
        "photos: 1 file passed over (.txt 1)",
        "photos: 3 images of 16 bits, scaled to 8",
        "photos: 1 image turned upright by EXIF",
        "photos: 1,200 rows without a text",
    ]
    assert notes.counts()["rows without a text"] == 1200
    Notes().tell("photos")
    assert capsys.readouterr().err == ""
