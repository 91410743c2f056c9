"""What the command line refuses before Ray starts, in this process; tests/end_to_end start a process for each."""

import logging
import os
import signal
import socket
from types import SimpleNamespace

import pytest

from penstock.orchestrator.cli import app
from penstock.orchestrator.cli.invocation import Invocation

TINY = """
problem: {name: darcy, resolution: 16}
solver: {strategy: {name: gcrodr, m: 20, k: 5, pc: jacobi}}
buffer: {capacity: 128, watermark: 32}
model: {name: fno, width: 8, modes: 4, layers: 2}
training: {batch_size: 8, device: cpu, stop_after: {steps: 1}}
"""


@pytest.fixture
def penstock(tmp_path, monkeypatch, capfd):
    """The command line as a function in a folder with tiny.yaml: from arguments to the exit code and standard error."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    environment = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    loggers = [logging.getLogger(name) for name in (app.TRACEBACKS, "penstock.solvers.linear.linear_solver")]
    levels = [logger.level for logger in loggers]

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["penstock", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            app.run()
        return SimpleNamespace(code=ended.value.code, stderr=capfd.readouterr().err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    os.environ.clear()
    os.environ.update(environment)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    Invocation.log, Invocation.owns_process = None, False


def assert_one_line(result, expected):
    assert result.code == 2
    assert result.stderr.startswith("penstock: ") and result.stderr.count("\n") == 1, result.stderr
    assert expected in result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tiny.yaml", "training.batch_sise=4"], "training.batch_sise: unknown key; did you mean 'batch_size'?"),
        (["empty.yaml"], "empty.yaml is empty"),
        (["binary.yaml"], "binary.yaml is not text"),
        (["broken.yaml"], "broken.yaml, line 2"),
        (["."], "is a folder"),
        (["tiny.yaml", "problem.name=darci"], "problem.name: there is no 'darci'; did you mean 'darcy'?"),
        (["tiny.yaml", "problem.resolutoin=8"], "problem.resolutoin: unknown key; did you mean 'resolution'?"),
        (["tiny.yaml", "solver.strategy=gcrodrr"], "solver.strategy: there is no 'gcrodrr'; did you mean 'gcrodr'?"),
        (["tiny.yaml", "solver.strategy.pc=jakobi"], "'jakobi' is not known; did you mean 'jacobi'?"),
        (["tiny.yaml", "model.modes=50"], "modes"),
        (["tiny.yaml", "training.device=cuda:99"], "training.device: 'cuda:99' was asked for and torch sees"),
        (["tiny.yaml", "training.device=gpu"], "training.device: there is no 'gpu'"),
        (["tiny.yaml", "buffer.placement=device"], "buffer.placement: 'device' was asked for and training runs on the"),
    ],
)
def test_bad_input_is_one_line(penstock, tmp_path, arguments, expected):
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "broken.yaml").write_text("name: x\nproblem: a: b\n")
    assert_one_line(penstock("train", *arguments), expected)


def test_a_port_in_use_is_one_line(penstock):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_one_line(penstock("train", "tiny.yaml", f"metrics.port={port}"), f"metrics.port: {port} is in use")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train"], "Missing argument"),
        (["train", "tiny.yaml", "--bogus"], "No such option: --bogus"),
        (["predict", "--num", "0"], "Invalid value for '--num'"),
    ],
)
def test_a_misused_command_says_how_to_use_it(penstock, arguments, expected):
    result = penstock(*arguments)
    assert result.code == 2
    assert expected in result.stderr and "Usage: " in result.stderr


@pytest.mark.parametrize("command", ["monitor", "export", "predict", "resume", "train tiny.yaml", "generate tiny.yaml"])
def test_quiet_and_json_exclude_each_other_and_leave_errors_as_they_are(penstock, command):
    more = ("--num", "2") if command.startswith("generate") else ()
    assert_one_line(penstock(*command.split(), *more, "--quiet", "--json"), "--quiet and --json: give one of them")
    for form in ("--quiet", "--json"):
        problem = ("problem=darci",) if "tiny" in command else ()
        expected = "there is no 'darci'" if problem else "there is no run under"
        assert_one_line(penstock(*command.split(), *problem, *more, form), expected)


@pytest.mark.parametrize("command", ["monitor", "export", "predict", "resume"])
def test_commands_without_a_run_are_one_line(penstock, command):
    assert_one_line(penstock(command), "there is no run under")
    assert_one_line(penstock(command, "absent"), "absent is not a run folder")
