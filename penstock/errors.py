"""The one exception of expected faults: a line that says what is wrong, where, and what to do."""

import dis
import signal
import traceback
from collections.abc import Iterator
from types import CodeType

MAX_CHARACTERS = 500  # of a text that is not ours, in a line for the user; the log has all of it


class PenstockError(Exception):
    """An expected fault (bad input, a full disk, a port in use). Its text is one line for the user.

    `exit_code` is what the command line ends with: 2 for input that can be mended before the run,
    1 for a fault of the run, 3 where the problem's solves fail.
    """

    def __init__(self, message: str, *, exit_code: int = 2):
        super().__init__(one_line(message))
        self.exit_code = exit_code

    def __reduce__(self):
        # Exceptions cross process borders pickled, and the default protocol drops keyword arguments.
        return _rebuild, (str(self), self.exit_code)


class Refused(ValueError):
    """What a user's code gave and can't be taken. Its text says all: no place in penstock's own code helps."""


def _rebuild(message: str, exit_code: int) -> PenstockError:
    return PenstockError(message, exit_code=exit_code)


def describe(error: BaseException, user_file: str | None = None) -> str:
    """An unexpected error as one line: type, message, and the last place in `user_file`, else where it was raised.

    Never raises, whatever the error's own code does.
    """
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if frame.filename == user_file), frames[-1] if frames else None)
    place = f" ({frame.filename}, line {frame.lineno})" if frame else ""
    return one_line(f"{type(error).__name__}: {text_of(error)}{place}")


def text_of(error: BaseException) -> str:
    """The error's message as one line of at most about MAX_CHARACTERS."""
    try:
        text = str(error)
    except BaseException as raised:  # of a user's class
        return f"its text can't be had, for that raises {type(raised).__name__}"
    if len(text) > MAX_CHARACTERS:
        text = f"{text[: MAX_CHARACTERS // 2]} ... {text[-MAX_CHARACTERS // 2 :]}"
    return one_line(text) or "no message"


def one_line(text: str) -> str:
    """The text on one line that every terminal and file takes: what can't be printed is escaped."""
    characters = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in characters)


def raised_by_signal(error: BaseException) -> bool:
    """Whether a signal's handler raised the error, and not the code that it interrupted."""
    frames = list(_frames(error))
    if not frames:
        return False
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}
    if any(code in handlers for code, _ in frames):
        return True
    # Python's own handler of SIGINT is written in C and has no frame; a user's KeyboardInterrupt comes of a `raise`.
    code, at = frames[-1]
    return isinstance(error, KeyboardInterrupt) and dis.opname[code.co_code[at]] != "RAISE_VARARGS"


def _frames(error: BaseException) -> Iterator[tuple[CodeType, int]]:
    """What was running, outermost first: the code, and the offset of its instruction."""
    at = error.__traceback__
    while at is not None:
        yield at.tb_frame.f_code, at.tb_lasti
        at = at.tb_next
