"""An error as text: the sentence, every reason, what to do next."""

from collections.abc import Iterator

from core.errors import LiferaftError, ProcessError, RefusedError

_OUTPUT_LINES = 12


def explain(error: LiferaftError) -> str:
    """The text, for a pager."""
    return "\n".join(_lines(error))


def _lines(error: LiferaftError) -> Iterator[str]:
    yield error.message
    if isinstance(error, RefusedError) and error.reasons != (error.message,):
        yield ""
        yield "All reasons:"
        yield from (f"  - {reason}" for reason in error.reasons)
    if error.hint:
        yield ""
        yield f"What to do: {error.hint}"
    if isinstance(error, ProcessError):
        yield ""
        yield f"The command was: {' '.join(error.argv)}"
        yield from (f"  {line}" for line in error.output.strip().splitlines()[-_OUTPUT_LINES:])
