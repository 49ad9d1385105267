"""Everything tuneful raises on purpose.

TunefulError
├── ConfigError      a setting or recipe is wrong: names the field, the value found and the way out
├── DataError        a file or row cannot be read: names file, line and field
├── ModelError       a model directory, tokenizer or adapter cannot serve the role asked of it
├── GenerationError  sampling cannot start or go on
├── RewardError      a reward is missing, not finite or of the wrong shape
├── TrainingError    an update would leave weights that are not finite
├── CheckError       a start-up check failed; the message is the report
├── StoreError       the store of judgments cannot be reached, is newer than this version, or says no
│   ├── AccessError       to this person or program
│   ├── ConflictError     an id stands for something else already
│   ├── GoneError         the item is not in the rater's hands any more
│   ├── MissingError      what was named is not there
│   └── UnavailableError  for the moment: the database, or who else is asked, is busy, full or away
└── RunError         a run directory is in use, belongs to another recipe, or cannot be written

The command line prints the message of a TunefulError as one line and exits with 2; any other exception is a bug and
keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class TunefulError(Exception):
    """Base of all errors a user can mend."""


class ConfigError(TunefulError):
    """A setting or recipe is wrong."""


class DataError(TunefulError):
    """A file or row cannot be read."""


class ModelError(TunefulError):
    """A model, tokenizer or adapter cannot serve the role asked of it."""


class GenerationError(TunefulError):
    """Sampling cannot start or go on."""


class RewardError(TunefulError):
    """A reward is missing, not finite or of the wrong shape."""


class TrainingError(TunefulError):
    """An update would leave weights that are not finite."""


class CheckError(TunefulError):
    """A start-up check failed."""


class StoreError(TunefulError):
    """The store of judgments cannot be reached, is newer than this version, or refuses what was asked."""


class AccessError(StoreError):
    """A person or program may not do what it asks for."""


class ConflictError(StoreError):
    """An id stands for something else already, which stays as it is."""


class GoneError(StoreError):
    """An item is not in the rater's hands any more."""


class MissingError(StoreError):
    """What was named is not in the store."""


class UnavailableError(StoreError):
    """The database, or a provider that people sign in by, is busy, full or away; nothing was changed, and asking again
    may help."""


class RunError(TunefulError):
    """A run directory is in use, belongs to another recipe, or cannot be written."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like it; None where none is near."""
    return next(iter(get_close_matches(name, sorted(known), n=1)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean "clip"?` when a known name is near, else the list of known names."""
    choices = sorted(known)
    near = nearest(name, choices)
    if near is not None:
        return f'; did you mean "{near}"?'
    return f"; known: {', '.join(choices)}" if choices else ""
