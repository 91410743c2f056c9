"""Expected faults: one line that says what is wrong, where, and what to do."""

import dis
import signal
import sys
import traceback
from collections.abc import Iterator
from functools import partial
from types import CodeType

# The longest text of other people's code that a line for the user quotes; the log has all of it.
MAX_CHARACTERS = 500
# The longest that is repeated of it.
MAX_REPEATED = 200


class PenstockError(Exception):
    """An expected fault, such as bad input, a full disk or a port in use.

    Its text is one line for the user.

    Args:
        message: what is wrong, where, and what to do; it is brought to one line.
        exit_code: exit status of the command line: 2 for input that can be mended before the run, 1 for a fault of the
            run, 3 where the problem's solves fail.
    """

    def __init__(self, message: str, *, exit_code: int = 2):
        super().__init__(one_line(message))
        self.exit_code = exit_code

    def __reduce__(self):
        # Exceptions cross process borders pickled, and the default protocol drops keyword arguments.
        return _rebuild, (type(self), str(self), self.exit_code)


class WorkerDied(PenstockError):
    """The death of processes that a worker had started.

    Another worker may do its simulations again.
    """

    def __init__(self, message: str, *, exit_code: int = 3):
        super().__init__(message, exit_code=exit_code)


class ConnectionLost(WorkerDied):
    """A worker's connection to the learner broke.

    Its own process lives: where the learner has died, another one can be connected to.
    """


class DiskFault(PenstockError):
    """A disk that stayed full or out of order.

    Nothing is wrong with the run: it goes on from its newest checkpoint.
    """

    def __init__(self, message: str, *, exit_code: int = 1):
        super().__init__(message, exit_code=exit_code)


class Refused(ValueError):
    """A value from a user's code that penstock cannot use.

    Its text says everything, because no line number in penstock's code would help.
    """


def _rebuild(cls: type[PenstockError], message: str, exit_code: int) -> PenstockError:
    return cls(message, exit_code=exit_code)


def describe(error: BaseException, *user_files: str | None) -> str:
    """An unexpected error as one line: its type, its message and a place.

    Never raises, whatever the error's methods do.

    Args:
        error: the error.
        *user_files: the place is the last one in any of these files; where the error passed through none of them, it
            is the place where the error was raised.

    Returns:
        The line.
    """
    frames = traceback.extract_tb(error.__traceback__)
    place = place_in(error, *user_files) or (_place(frames[-1]) if frames else "")
    return one_line(f"{type(error).__name__}: {text_of(error)}{place}")


def place_in(error: BaseException, *files: str | None) -> str:
    """The last place in any of these files that an error passed through.

    Args:
        error: the error.
        *files: the files.

    Returns:
        The place as " (file, line n)"; "" where there is none.
    """
    frames = traceback.extract_tb(error.__traceback__)
    return next((_place(frame) for frame in reversed(frames) if frame.filename in files), "")


def _place(frame: traceback.FrameSummary) -> str:
    return f" ({frame.filename}, line {frame.lineno})"


def file_of(what: object) -> str | None:
    """The file that defines a class, a function, or the class of an object.

    None where it is in no file. Of a function with arguments bound to it, it is the function's.
    """
    while isinstance(what, partial):
        what = what.func
    return getattr(sys.modules.get(getattr(what, "__module__", None)), "__file__", None)


def text_of(error: BaseException) -> str:
    """The error's message as one line of about MAX_CHARACTERS at most."""
    try:
        text = str(error)
    except BaseException as raised:  # a user's class may raise anything
        return f"its text can't be read: that raises {type(raised).__name__}"
    if len(text) > MAX_CHARACTERS:
        text = f"{text[: MAX_CHARACTERS // 2]} ... {text[-MAX_CHARACTERS // 2 :]}"
    return one_line(text) or "no message"


def shortened(text: str) -> str:
    """A line that was shown in full before, without its middle.

    Its end says where, and what to do.
    """
    if len(text) <= MAX_REPEATED:
        return text
    head, tail = text[: MAX_REPEATED // 2], text[-MAX_REPEATED // 2 :]
    return f"{head.rpartition(' ')[0] or head} ... {tail.partition(' ')[2] or tail}"


def one_line(text: str) -> str:
    """The text on one line, with unprintable characters escaped.

    Every terminal and every file can show it.
    """
    characters = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in characters)


def raised_by_signal(error: BaseException) -> bool:
    """Whether a signal's handler raised the error, not the interrupted code."""
    frames = list(_frames(error))
    if not frames:
        return False
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}
    if any(code in handlers for code, _ in frames):
        return True
    # Python's handler of SIGINT is written in C and has no frame; a user's KeyboardInterrupt comes from a `raise`.
    code, at = frames[-1]
    return isinstance(error, KeyboardInterrupt) and dis.opname[code.co_code[at]] != "RAISE_VARARGS"


def _frames(error: BaseException) -> Iterator[tuple[CodeType, int]]:
    """The running code objects and instruction offsets, outermost first."""
    at = error.__traceback__
    while at is not None:
        yield at.tb_frame.f_code, at.tb_lasti
        at = at.tb_next
