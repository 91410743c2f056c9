"""The server of the dashboard.

It listens on 127.0.0.1 alone, answers only those who have its address, and changes nothing.
"""

from __future__ import annotations

import errno
import hmac
import json
import os
import secrets
import sys
from collections.abc import Mapping
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from penstock.errors import PenstockError, describe
from penstock.orchestrator.history.standing import is_run_folder
from penstock.orchestrator.views.dashboard.boards import Board
from penstock.orchestrator.views.dashboard.pages import GOING, Pages
from penstock.orchestrator.views.report.page import page

ADDRESS = "127.0.0.1"
HOSTS = (ADDRESS, "localhost")
"""Names in an address that may lead here; any other could be that of a foreign page, by DNS rebinding."""
SCRIPT = "live.js"
NICENESS = 10  # training on this machine comes first
SOON_S, USUALLY_S, LATER_S = 0.5, 2.0, 10.0
"""Seconds between two requests of a page: while a part of it is made, afterwards, and when its run is over."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
HTML, JSON, JAVASCRIPT, TEXT = (
    f"{kind}; charset=utf-8" for kind in ("text/html", "application/json", "text/javascript", "text/plain")
)
FORBIDDEN = "Open the address that the dashboard printed when it was started.\n"
GONE = "There is no such run: it was deleted or moved, or there never was one.\n"


class Refusal(Exception):
    """A request that gets no page.

    Args:
        status: the HTTP status.
        text: a line.
    """

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class Dashboard(ThreadingHTTPServer):
    """Serves the pages about the runs of a folder until it is closed.

    Args:
        folder: the folder.
        port: the port; 0 for a free one.

    Raises:
        PenstockError: the port can't be had.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0):
        self.token = secrets.token_urlsafe(32)
        self.session = secrets.token_urlsafe(32)
        """What a browser has as a cookie once it has shown the token."""
        self.pages = Pages(folder)
        self.script = Path(__file__).with_name(SCRIPT).read_bytes()
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            reason = "it is in use" if is_taken else str(error.strerror)
            raise PenstockError(
                f"can't listen on port {port} of {ADDRESS}: {reason}: give another --port, or none for a free one",
                exit_code=1,
            ) from error

    def server_bind(self) -> None:
        """Take the port, without asking a name server for this machine's name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def server_close(self) -> None:
        """Close the port, and end what is being made."""
        super().server_close()
        self.pages.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report a fault other than a lost connection, without the address's token."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"penstock: a page could not be made: {describe(error)}", file=sys.stderr, flush=True)

    def address(self, path: str = "/") -> str:
        """The address that opens a page."""
        return f"http://{ADDRESS}:{self.server_port}{path}?token={self.token}"


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of a connection that brings the token or the cookie."""

    server: Dashboard
    protocol_version = "HTTP/1.1"
    timeout = 60.0  # s, for which an idle connection is kept

    def do_GET(self) -> None:
        try:
            self._answer()
        except Refusal as refusal:
            self._send(refusal.status, TEXT, str(refusal).encode())

    do_HEAD = do_GET

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse malformed requests and other methods, without repeating what was sent."""
        self.close_connection = True  # what follows may be its body
        is_method = code == 501
        text = b"Only GET and HEAD are answered.\n" if is_method else b"This is no request.\n"
        self._send(405 if is_method else code, TEXT, text, {"Allow": "GET, HEAD"} if is_method else {})

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep no log: addresses have the token in them."""

    def version_string(self) -> str:
        """The server's name in its answers."""
        return "penstock"

    def _answer(self) -> None:
        if self.headers.get("Host", "").lower().partition(":")[0] not in HOSTS:
            raise Refusal(403, FORBIDDEN)
        raw, _, query = self.path.partition("?")
        if (token := parse_qs(query).get("token")) is not None:
            if not _is(token[0], self.server.token):
                raise Refusal(403, FORBIDDEN)
            cookie = f"{self._cookie}={self.server.session}; Path=/; HttpOnly; SameSite=Strict"
            self._redirect(_quoted(_parts(raw)), {"Set-Cookie": cookie})
            return
        if not _is(self._session(), self.server.session):
            raise Refusal(403, FORBIDDEN)
        match _parts(raw):
            case [""]:
                self._show(self.server.pages.runs, "")
            case ["state"] | ["section", _] as rest:
                self._show(self.server.pages.runs, *rest)
            case [name] if name == SCRIPT:
                self._send(200, JAVASCRIPT, self.server.script)
            case ["run", "latest", ""] if (path := self.server.pages.latest()) is not None:
                self._redirect(_quoted(["run", path.name, ""]), {})
            case ["run", name, ("" | "state") as rest]:
                self._show(self._of_run(name), rest)
            case ["run", name, "section", key]:
                self._show(self._of_run(name), "section", key)
            case _:
                raise Refusal(404, "There is no such page.\n")

    @property
    def _cookie(self) -> str:
        return f"penstock-{self.server.server_port}"  # cookies are shared by all ports of a host

    def _session(self) -> str:
        pairs = (pair.strip().partition("=") for pair in self.headers.get("Cookie", "").split(";"))
        return next((value for name, _, value in pairs if name == self._cookie), "")

    def _of_run(self, name: str) -> Board:
        if (path := self.server.pages.path_of(name)) is None:
            raise Refusal(404, GONE)
        return self.server.pages.of_run(path)

    def _show(self, board: Board, what: str, key: str = "") -> None:
        board.refresh()
        if what == "section":
            self._show_section(board, key)
        elif what == "state":
            self._send(200, JSON, json.dumps(_state(board)).encode())
        else:
            self._send(200, HTML, self._document(board).encode())

    def _show_section(self, board: Board, key: str) -> None:
        if (found := board.section(key)) is None:
            raise Refusal(404, "There is no such section, or it is still being made.\n")
        section, etag = found
        if self.headers.get("If-None-Match") == etag:
            self._send(304, HTML, b"", {"ETag": etag})
        else:
            self._send(200, HTML, section.html.encode(), {"ETag": etag})

    def _document(self, board: Board) -> str:
        etags = escape(json.dumps(board.etags()))  # before the sections: those may be newer, and come once more
        head = f'<meta name="etags" content="{etags}"><script src="/{SCRIPT}" defer></script>'
        note = '<p id="live" role="status">This page is live where scripts may run.</p>'
        if board is not self.server.pages.runs:
            note = f'<p><a href="/">All runs of {escape(str(self.server.pages.folder))}</a></p>{note}'
        return page(board.title, board.sections(), head=head, note=note)

    def _redirect(self, to: str, headers: Mapping[str, str]) -> None:
        self._send(303, TEXT, b"", {"Location": to, **headers})

    def _send(self, status: int, kind: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        content = {} if status == 304 else {"Content-Type": kind, "Content-Length": str(len(body))}
        self.send_response(status)
        for name, value in (HEADERS | content | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def serve(path: Path, port: int) -> None:
    """Print the dashboard's address, and serve it until the process is interrupted.

    Args:
        path: a run folder, whose page is opened first, or a folder of run folders.
        port: the port; 0 for a free one.

    Raises:
        PenstockError: there is no such folder, or the port can't be had.
    """
    path = path.resolve()
    if not path.is_dir():
        raise PenstockError(f"there is no folder {path}: name that of a run, or one that holds run folders")
    is_run = is_run_folder(path)
    folder = path.parent if is_run else path
    with Dashboard(folder, port) as server:
        os.nice(NICENESS)
        address = server.address(f"/run/{quote(path.name, safe='')}/" if is_run else "/")
        print(f"dashboard of {path}, for this machine alone, until Ctrl-C: open\n{address}", flush=True)
        server.serve_forever()


def _state(board: Board) -> dict[str, Any]:
    """What a page polls: the etags of its sections, and when to ask again."""
    etags, state = board.etags(), board.state()
    settled_s = LATER_S if state and state not in GOING else USUALLY_S
    next_s = settled_s if board.is_settled else SOON_S
    sentence = f"This page is live; the run's state: {state}." if state else "This page is live."
    return {"etags": etags, "sentence": sentence, "next_ms": 1000 * next_s}


def _is(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())


def _parts(raw: str) -> list[str]:
    """The parts of a path between slashes, each decoded once."""
    return [unquote(part) for part in raw.removeprefix("/").split("/")]


def _quoted(parts: list[str]) -> str:
    """The path of its parts, which leads to this server whatever they are."""
    return "/" + "/".join(quote(part, safe="") for part in parts).lstrip("/")
