"""stub"""

from simdistill.runs import RunFolder


def write_report(run: RunFolder) -> None:
    """stub"""
