"""What is said when something is refused."""

import pytest

from penstock.errors import PenstockError


def refusal(function, *arguments) -> str:
    """The one line of a PenstockError that a call must raise."""
    with pytest.raises(PenstockError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)
