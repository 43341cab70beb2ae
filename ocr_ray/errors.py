"""Mistakes of the user, each told in one line.

    UserError            exit code 2, no traceback
    ├── ConfigError      a key, a value or a type in a config, an override or a search space
    ├── DataError        a label file or an image
    ├── WeightsError     a file of weights: its format, its names, its shapes
    ├── ClusterError     a cluster that is not there, or on which the work can never be placed
    └── RunError         a run that cannot be started, resumed or found

Anything else that escapes is a defect of ours and keeps its traceback.
"""


class UserError(Exception):
    """One line that names the file, key or value and says what was expected."""


class ConfigError(UserError):
    """A key, a value or a type in a config, an override or a search space."""


class DataError(UserError):
    """A label file or an image."""


class WeightsError(UserError):
    """A file of weights: its format, its names or its shapes."""


class ClusterError(UserError):
    """A cluster that is not there, or on which the work can never be placed."""


class RunError(UserError):
    """A run that cannot be started, resumed or found."""


def in_one_line(error: BaseException) -> str:
    """The first line that `error` says, cut where it is very long; its type where it says nothing."""
    lines = str(error).split("\n")
    return " ".join(lines[0].split())[:300] or type(error).__name__
