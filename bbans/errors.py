"""The exceptions that `bbans` raises. Each message says what was expected, what came, and what to do."""


class BbansError(Exception):
    """Base of all errors that `bbans` raises on purpose."""


class FormatError(BbansError):
    """Bytes that should be a `.bba` file are damaged, truncated, of a newer version or something else."""


class LimitError(BbansError):
    """A file asks for more memory than it may have."""


class ModelError(BbansError):
    """A model is missing, damaged, or not the one that a file was written with."""


class ArrayError(BbansError):
    """The input is not an array of numbers that can be compressed."""


class StackUnderflow(BbansError):
    """A pop asked for more words than the stack's tail holds."""


class ImpossibleSymbol(BbansError):
    """A symbol is to be pushed that its distribution gives no frequency."""


class CoreError(BbansError):
    """An ANS core or an engine was asked for by a name that is not installed."""


class RecipeError(BbansError):
    """A training recipe, or the data for it, is not what it should be."""


class TrainingPaused(BbansError):
    """A training run came to the end of its time; the same call goes on with it."""


class BenchmarkError(BbansError):
    """A benchmark needs what is not there, or a codec did not give back what it was given."""


class AnalysisError(BbansError):
    """An analysis is asked for what the model doesn't have, or to go on with the results of another one."""


class StoredWarning(UserWarning):
    """Data was stored through zstandard, since no model fits or codes it better."""
