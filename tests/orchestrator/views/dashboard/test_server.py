"""The server asked by HTTP: who gets in, what is served, and what never is."""

import json
import os
import shutil
import socket
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from penstock.errors import PenstockError
from penstock.machine import identity_of
from penstock.orchestrator.cli.app import app
from penstock.orchestrator.views.dashboard import boards
from penstock.orchestrator.views.dashboard.pages import BRIEF
from penstock.orchestrator.views.dashboard.server import FORBIDDEN, Dashboard, serve
from penstock.orchestrator.views.dashboard.trial import KEYS, TRIAL_S
from penstock.orchestrator.views.report.page import SECTIONS
from tests.orchestrator.views.dashboard.conftest import NAME, append, make_run
from tests.support.waiting import wait_until

PAGE = f"/run/{NAME}/"
DRAWN = ("losses", "throughput", "buffer", "solving", "rollout")


def test_only_the_token_opens_it_and_it_is_never_seen_again(dashboard, visitor):
    for path in ("/", PAGE, f"{PAGE}state", "/live.js", "/nowhere", "/?token=", "/?token=%ff", f"{PAGE}?token=x"):
        status, headers, text = visitor.ask(path, is_known=False)
        assert (status, text) == (403, FORBIDDEN) and "Set-Cookie" not in headers
    for cookie in ("penstock=x", f"penstock-{dashboard.server_port}={dashboard.token}", "\xff;=;"):
        assert visitor.ask("/", headers={"Cookie": cookie}, is_known=False)[0] == 403
    status, headers, text = visitor.ask(f"{PAGE}?token={dashboard.token}", is_known=False)
    assert (status, headers["Location"], text) == (303, PAGE, "")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert dashboard.token not in cookie
    known = {"Cookie": cookie.partition(";")[0]}
    visitor.settled("/", ["runs"])
    visitor.settled(PAGE, BRIEF)
    for path in ("/", "/state", "/section/runs", PAGE, f"{PAGE}state", f"{PAGE}section/overview", "/live.js"):
        status, headers, text = visitor.ask(path, headers=known, is_known=False)
        assert status == 200
        shown = text + str(headers)
        assert dashboard.token not in shown and dashboard.session not in shown
        assert headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")


def test_a_token_leads_nowhere_else(dashboard, visitor):
    for path in ("//elsewhere/", "/%2f%2felsewhere/", "/\\elsewhere/"):
        location = visitor.ask(f"{path}?token={dashboard.token}", is_known=False)[1]["Location"]
        assert location.startswith("/") and location[1:2] not in ("/", "\\")


def test_another_name_for_this_machine_is_refused(dashboard, visitor):
    for host in ("elsewhere", "127.0.0.1.elsewhere", "elsewhere:80", "", "[::1]:80", "127.0.0.1@x"):
        assert visitor.ask("/", headers={"Host": host})[0] == 403
        assert visitor.ask(f"/?token={dashboard.token}", headers={"Host": host})[0] == 403
    for own in ("localhost", f"LOCALHOST:{dashboard.server_port}", "127.0.0.1:1"):  # 1: through a tunnel
        assert visitor.ask("/", headers={"Host": own})[0] == 200


def test_nothing_can_be_changed(visitor):
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "<b>"):
        status, headers, text = visitor.ask("/", method=method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
        assert "<b>" not in text
    assert visitor.ask("/", method="HEAD")[0::2] == (200, "")


OTHERS = (
    *("..", ".", "", "%2e%2e", "%2E%2E%2Fsecret-20260101-000000", "..%2fsecret-20260101-000000", "%252e%252e"),
    *("..%5csecret", "%00", f"{NAME}%00", f"{NAME}%2f..%2f..%2fsecret-20260101-000000", "link-20260101-000000"),
    *("..%c0%af..", f"./{NAME}", f"../runs/{NAME}", "notes", "file-20260101-000000", "%ff", "a" * 5000),
)


def test_no_path_leads_out_of_the_folder(runs, visitor):
    secret = make_run(runs.parent, "secret-20260101-000000")
    (runs / "link-20260101-000000").symlink_to(secret)
    (runs / "latest").symlink_to(secret)
    (runs / "file-20260101-000000").write_text("secret")
    (runs / "notes").mkdir()
    for name in OTHERS:
        for path in (f"/run/{name}/", f"/run/{name}/state", f"/run/{name}/section/overview", f"{PAGE}../../{name}/"):
            status, _, text = visitor.ask(path)
            assert status == 404 and "secret" not in text
        assert visitor.ask(f"{PAGE}section/{name}")[0] == 404
    for path in (str(secret), f"/run{secret}/", "/run/latest/", f"{PAGE}config.yaml", "/run/live.js", "/%6cive%2ejs/"):
        assert visitor.ask(path)[0] == 404
    listed = visitor.settled("/", ["runs"])["etags"]
    assert set(listed) == {"runs"} and "secret" not in visitor.ask("/section/runs")[2]


def test_latest_leads_to_a_run_of_the_folder(runs, visitor):
    (runs / "latest").symlink_to(NAME)
    assert visitor.ask("/run/latest/")[1]["Location"] == PAGE


def test_a_section_is_sent_when_it_has_changed(runs, visitor, monkeypatch):
    monkeypatch.setattr(boards, "SHARE_AFTERWARDS", 1e9)
    monkeypatch.setattr(boards, "SHORTEST_S", 0.0)
    before = visitor.settled(PAGE, [*BRIEF, *DRAWN])["etags"]
    status, headers, text = visitor.ask(f"{PAGE}section/overview")
    assert status == 200 and headers["ETag"] == before["overview"] and "16 unique" in text
    unchanged = {"If-None-Match": before["overview"]}
    assert visitor.ask(f"{PAGE}section/overview", headers=unchanged)[0::2] == (304, "")
    append(runs / NAME, 3)
    after = {}

    def is_new() -> bool:
        after.update(json.loads(visitor.ask(f"{PAGE}state")[2])["etags"])
        return all(after[key] != before[key] for key in ("overview", "losses"))

    wait_until(is_new)
    assert "24 unique" in visitor.ask(f"{PAGE}section/overview", headers=unchanged)[2]
    assert after["configuration"] == before["configuration"]


def test_the_list_shows_every_run_whatever_is_left_of_it(runs, visitor, monkeypatch):
    monkeypatch.setattr(boards, "SHARE", 1e9)
    monkeypatch.setattr(boards, "SHARE_AFTERWARDS", 1e9)
    monkeypatch.setattr(boards, "SHORTEST_S", 0.0)
    (runs / "half-20260101-000000").mkdir()
    (runs / "old-20260101-000000").mkdir()
    (runs / "old-20260101-000000" / "run.json").write_text('{"state": "meditating", "cause": "<b>"}')
    (runs / "old-20260101-000000" / "metrics.jsonl").write_text('{"step": "many"}\n{"st')
    visitor.settled("/", ["runs"])
    text = visitor.ask("/section/runs")[2]
    assert text.count('<th scope="row">') == 3 and "<b>" not in text
    assert f'<a href="{PAGE}">{NAME}</a>' in text and "ended" in text and "wave_1d" in text
    for name in ("half-20260101-000000", "old-20260101-000000"):
        visitor.settled(f"/run/{name}/", BRIEF)
        assert "broken" in visitor.ask(f"/run/{name}/section/overview")[2]
    shutil.rmtree(runs / "old-20260101-000000")
    status, _, text = visitor.ask("/run/old-20260101-000000/state")
    assert status == 404 and text.count("\n") == 1 and "deleted" in text
    shutil.rmtree(runs)
    assert visitor.ask(PAGE)[0] == 404
    wait_until(lambda: "can&#x27;t be shown" in visitor.ask("/section/runs")[2])
    assert f"{runs} can&#x27;t be read: No such file or directory</p>" in visitor.ask("/section/runs")[2]


def test_nothing_is_written(runs, visitor, dashboard):
    """So that a run may be another user's, or on a disk that is read-only."""

    def contents() -> dict:
        return {path: path.stat().st_mtime_ns for path in [runs, *runs.rglob("*")]}

    before = contents()
    visitor.settled("/", ["runs"])
    visitor.settled(PAGE, SECTIONS)
    assert contents() == before


def test_what_can_t_be_read_is_a_line(runs, visitor):
    (runs / NAME / "metrics.jsonl").unlink()
    (runs / NAME / "metrics.jsonl").mkdir()
    visitor.settled(PAGE, [*BRIEF, *DRAWN])
    for key in (*BRIEF, *DRAWN):
        assert "metrics.jsonl can&#x27;t be read: Is a directory" in visitor.ask(f"{PAGE}section/{key}")[2]


def test_a_part_that_took_long_is_left_for_long(runs, visitor, dashboard, monkeypatch):
    monkeypatch.setattr(boards, "SHARE_AFTERWARDS", 1e-9)
    board = dashboard.pages.of_run(runs / NAME)
    wait_until(lambda: visitor.ask(PAGE) and board.is_settled)
    before = board.etags()
    append(runs / NAME, 3)
    assert json.loads(visitor.ask(f"{PAGE}state")[2])["etags"] == before
    assert board.is_settled  # nothing is being made


def test_a_young_run_is_not_tried_out_until_it_can_afford_it(runs, visitor, monkeypatch):
    path = make_run(runs, f"wave-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    (path / "checkpoints" / "10").mkdir(parents=True)
    running = {"state": "running", "driver_pid": os.getpid(), "driver_identity": identity_of(os.getpid())}
    (path / "run.json").write_text(json.dumps(running))
    monkeypatch.setattr(boards, "SHARE", TRIAL_S / boards.CORES / 3600.5)
    visitor.settled(f"/run/{path.name}/", KEYS)
    assert "once the run is 1:00:00 old, or over" in visitor.ask(f"/run/{path.name}/section/cases")[2]
    (path / "run.json").write_text(json.dumps(running | {"state": "ended"}))
    wait_until(
        lambda: (
            visitor.ask(f"/run/{path.name}/state")
            and "no validation set" in visitor.ask(f"/run/{path.name}/section/cases")[2]
        )
    )


def test_the_command_says_what_it_can_t_do(runs):
    with pytest.raises(PenstockError, match="there is no folder"):
        serve(runs / "nothing", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PenstockError, match=rf"^can't listen on port {port} of 127\.0\.0\.1: it is in use: give"):
            Dashboard(runs, port)


def test_it_prints_its_address_once_and_no_log(runs, monkeypatch):
    monkeypatch.setattr(Dashboard, "serve_forever", lambda server: print(server.token[::-1]))
    monkeypatch.setattr("os.nice", lambda by: by)
    result = CliRunner().invoke(app, ["dashboard", str(runs / NAME)])
    assert result.exit_code == 0, result.output
    first, address, reversed_token = result.output.splitlines()
    token = reversed_token[::-1]
    assert address.startswith("http://127.0.0.1:") and address.endswith(f"{PAGE}?token={token}")
    assert token not in first


def test_visitors_leave_nothing_in_a_log(dashboard, visitor, capfd):
    visitor.ask(f"/?token={dashboard.token}")
    visitor.ask("/?token=wrong", is_known=False)
    with socket.create_connection(("127.0.0.1", dashboard.server_port)) as rude:
        rude.sendall(b"GET /?token=" + dashboard.token.encode())
    with socket.create_connection(("127.0.0.1", dashboard.server_port)) as no_http:
        no_http.sendall(b"\x16\x03 <b> what\r\n\r\n")
        assert b"<b>" not in no_http.recv(4096)
    assert capfd.readouterr() == ("", "")
