"""Numbers in sentences."""


def counted(number: int, noun: str) -> str:
    """``'1 box'``, ``'2 boxes'``, ``'0 images'``."""
    ending = '' if number == 1 else 'es' if noun.endswith(('s', 'x', 'ch')) else 's'
    return f'{number} {noun}{ending}'
