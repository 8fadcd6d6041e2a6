"""The error of this package."""


class WeightsError(ValueError):
    """A file of weights is not what it should be, or fits no model here; says what was found and what was expected."""
