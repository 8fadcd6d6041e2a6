class ExportError(ValueError):
    """A model that cannot be exported, or a file that does not compute what the model does."""
