"""The errors of this package."""


class WeightsError(ValueError):
    """A file of weights is not what it should be, or fits no model here; says what was found and what was expected."""


class DamagedError(WeightsError):
    """A file that is cut off, damaged, or of no known kind, so that it is worth to copy or download it again."""
