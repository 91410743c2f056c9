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


@pytest.mark.parametrize("compiler", ["clang++", "no-such-compiler"])
def test_a_cpp_compiler_is_looked_for_and_need_not_be_there(monkeypatch, capsys, tmp_path, compiler):
    (tmp_path / "clang++").write_text("#!/bin/sh\necho a compiler\n")
    (tmp_path / "clang++").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / compiler))
    monkeypatch.setattr(
        doctor.shutil, "which", lambda command: command if command == str(tmp_path / "clang++") else None
    )
    doctor.examine()
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "C++ compiler" in line)
    assert ("a compiler" if compiler == "clang++" else "training.compile") in row
    assert "missing" not in row
