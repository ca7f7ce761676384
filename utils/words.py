"""Numbers with their nouns, for messages."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun, such as "1 clip" or "3 clips".

    Args:
        number: how many.
        noun: in the singular.
        plural: of the noun, where that is not formed with an s alone.
    """
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"
