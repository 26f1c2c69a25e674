"""Numbers with their nouns."""


def counted(number: int | float, noun: str) -> str:
    """A number with a noun in singular or plural, such as "1 epoch" and "1,438 images".

    Args:
        number: Of things; fractions have up to six digits.
        noun: In the singular, with a regular plural.
    """
    return f"{number:,g} {noun}{'' if number == 1 else 's'}" if number < 1e5 else f"{number:,.0f} {noun}s"
