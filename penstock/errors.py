"""The one exception of expected faults: a line that says what is wrong, where, and what to do."""


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


def _rebuild(message: str, exit_code: int) -> PenstockError:
    return PenstockError(message, exit_code=exit_code)
