"""`penstock doctor` on this installation, and on one whose kernels were not compiled."""

import sys

import pytest

from penstock.orchestrator.cli import doctor

KERNELS = "penstock.solvers.linear.kernels._kernels"


@pytest.mark.parametrize("compiled", [True, False])
def test_kernels_that_were_not_compiled_are_missing(monkeypatch, capsys, compiled):
    if not compiled:
        monkeypatch.setitem(sys.modules, KERNELS, None)
    code = doctor.examine()
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "kernels" in line.split())
    assert row.split()[0] == ("ok" if compiled else "missing")
    assert compiled or code == 1
