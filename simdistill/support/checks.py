"""One way to say that a setting is wrong: its name, the value found, and the remedy."""


def require(holds: bool, name: str, value: object, remedy: str) -> None:
    """Raise `ValueError("name = value: must be remedy")` unless `holds`; the command line prints it as one line."""
    if not holds:
        raise ValueError(f"{name} = {value!r}: must be {remedy}")
