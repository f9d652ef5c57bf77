"""The errors loadbench raises on purpose, and the exit code that each means.

LoadbenchError           anything below; caught once, at the top of the command line
 ├── SpecError     2     bad input: scenario, model file, tensor, setting; nothing was run
 ├── TargetError   3     the target does not answer, or not as its protocol demands
 └── RunError      3     the run could not be made: port, results folder, a child that died
"""

from loadbench.sentences import finished


class LoadbenchError(Exception):
    """What happened (`message`), and what the reader can do about it (`hint`)."""

    exit_code = 3

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def said(self) -> str:
        """Both on one line."""
        return f"{finished(self.message)} {self.hint}" if self.hint else self.message


def reason(error: Exception) -> str:
    """What was wrong with a value of others that could not be worked with, in nobody's language of
    programming."""
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing" if error.args else "something is missing"
    if isinstance(error, AttributeError | TypeError):
        return "a value in it is not of its kind"
    return str(error)


class SpecError(LoadbenchError):
    """The input is wrong; nothing was run."""

    exit_code = 2


class TargetError(LoadbenchError):
    """The target is down, or answers something its protocol does not allow."""


class RunError(LoadbenchError):
    """The run could not be made on this machine."""
