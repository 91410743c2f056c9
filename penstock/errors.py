"""The one exception of expected faults: a line that says what is wrong, where, and what to do."""

import traceback


class PenstockError(Exception):
    """An expected fault (bad input, a full disk, a port in use). Its text is one line for the user.

    `exit_code` is what the command line ends with: 2 for input that can be mended before the run,
    1 for a fault of the run, 3 where the problem's solves fail.
    """

    def __init__(self, message: str, *, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self):
        # Exceptions cross process borders pickled, and the default protocol drops keyword arguments.
        return _rebuild, (str(self), self.exit_code)


class Refused(ValueError):
    """What a user's code gave and can't be taken. Its text says all: no place in penstock's own code helps."""


def _rebuild(message: str, exit_code: int) -> PenstockError:
    return PenstockError(message, exit_code=exit_code)


def describe(error: BaseException, user_file: str | None = None) -> str:
    """An unexpected error as one line: type, message, and the last place in `user_file`, else where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if frame.filename == user_file), frames[-1])
    message = str(error).strip().replace("\n", " ") or "no message"
    return f"{type(error).__name__}: {message} ({frame.filename}, line {frame.lineno})"
