"""Every error that Ichigo raises on purpose.

::

    IchigoError                 something a person must know; ``exit_code`` is what the command line ends with
    ├── UserError          (2)  the input is wrong and no retry will help
    │   ├── RecipeError         the recipe: every problem at once, one line each
    │   ├── DataError           recordings, ``metadata.jsonl``, rows (``AudioError`` in ``speech.audio``: one recording)
    │   ├── TokenizerError      a ``.model`` or Whisper file, or audio that the tokenizer refuses
    │   ├── ContractError       ids of one token contract met data or a model of another
    │   └── ModelError          a model folder that is incomplete or of another shape
    ├── PlatformError      (3)  MLflow, S3 or the embedded platform does not answer as it should; a retry may help
    ├── IntegrityError     (4)  stored bytes are not those that were committed
    ├── StepError          (5)  a step of the pipeline failed; the message carries its last words
    │   ├── ProbeError          a check between two steps stopped the run, with its reason
    │   └── InfrastructureError (6)  the machine failed the step: a process killed or hanging, a disk full; run again
    └── Cancelled          (130) a person stopped the run

Messages name the field, row or file, what was found, and what to do. After 3 and 6 the same command may well succeed:
it goes on from what is committed and from the newest checkpoint. After 2, 4 and 5 somebody has to change something.
"""

from __future__ import annotations

import errno


class IchigoError(Exception):
    """Root of the tree; ``str(error)`` is written for the person at the terminal."""

    exit_code = 1


class UserError(IchigoError):
    """The input is wrong; a retry gives the same answer."""

    exit_code = 2


class RecipeError(UserError):
    """The recipe does not validate; ``problems`` holds one line per field."""

    def __init__(self, title: str, problems: list[str]) -> None:
        self.title = title
        self.problems = problems
        super().__init__("\n".join([title, *(f"  - {problem}" for problem in problems)]))


class DataError(UserError):
    """A recording, a row or its description cannot be used."""


class TokenizerError(UserError):
    """A speech tokenizer file is damaged, unsafe or of unknown geometry, or audio cannot be tokenised."""


class ContractError(UserError):
    """Token ids of one contract met data or a model of another."""


class ModelError(UserError):
    """A model folder is incomplete or does not fit its use."""


class PlatformError(IchigoError):
    """A service does not answer as it should."""

    exit_code = 3


class IntegrityError(IchigoError):
    """Stored bytes are not the committed ones, or were never committed."""

    exit_code = 4


class StepError(IchigoError):
    """A step of the pipeline failed."""

    exit_code = 5


class ProbeError(StepError):
    """A check between two steps stopped the run."""


class InfrastructureError(StepError):
    """The machine failed the step: a process was killed or hangs, memory or disk ran out; a retry goes on."""

    exit_code = 6


class Cancelled(IchigoError):
    """A person stopped the run."""

    exit_code = 130


_FULL = {errno.ENOSPC, errno.EDQUOT}


def exit_code_of(error: BaseException) -> int:
    """The exit code that tells whose fault ``error`` is; what nobody foresaw is the step's own."""
    if isinstance(error, IchigoError):
        return error.exit_code
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _FULL):
        return InfrastructureError.exit_code
    return StepError.exit_code


def error_for(exit_code: int) -> type[IchigoError]:
    """The error that stands for an exit code where only the code has come across; :class:`StepError` for others."""
    known = (UserError, PlatformError, IntegrityError, StepError, InfrastructureError, Cancelled)
    return next((kind for kind in known if kind.exit_code == exit_code), StepError)
