"""Exceptions that end in one clear line for the user.

Each message says what is wrong, where, and what to do about it. The command line prints that line and exits
with a non-zero code; the napari panel shows it as a notification.
"""


class SmlmPbError(Exception):
    """Base of every error that a user can cause and can mend."""


class MovieError(SmlmPbError):
    """The movie cannot be read, or does not hold what a movie must hold."""


class CameraError(SmlmPbError):
    """Camera values that no camera can have, or that contradict the movie."""


class ModelError(SmlmPbError):
    """Unknown, damaged or unsuitable network weights."""


class TableError(SmlmPbError):
    """A table of molecules that cannot be read, or lacks what is needed."""


class OutputError(SmlmPbError):
    """The result cannot be written where it was asked for."""


class ConfigurationError(SmlmPbError):
    """An experiment, recipe or pipeline file, or an option, with a wrong key or value."""


class ClusterError(SmlmPbError):
    """Other processes or machines that do not answer, or do not get their work done."""


class ImpossibleCountError(SmlmPbError, ValueError):
    """A molecule count that the candidates cannot produce (negative, or more than there are)."""


class Cancelled(SmlmPbError):
    """The user stopped the work; what was finished is kept."""
