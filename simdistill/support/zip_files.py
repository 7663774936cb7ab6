"""Zip archives of strangers: an entry must not unpack to far more than it is packed in."""

from zipfile import ZipInfo

from simdistill.support.checks import require

SMALL, DENSEST = 2**22, 100  # bytes that may be packed at will; times above


def check_density(where: str, entry: ZipInfo) -> None:
    """Raise `ValueError` for an entry of more than 4 MiB that is packed in less than a hundredth of its size."""
    dense = entry.file_size <= SMALL or entry.file_size <= DENSEST * entry.compress_size
    remedy = f"at most {DENSEST} times what it is packed in"
    require(dense, f"{where}: size of {entry.filename}", entry.file_size, remedy)
