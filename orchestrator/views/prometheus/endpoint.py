"""The run's endpoint for Prometheus: address, token and encryption."""

from __future__ import annotations

import errno
import hmac
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from penstock.errors import PenstockError
from penstock.orchestrator.config.metrics import MetricsSection

logger = logging.getLogger(__name__)

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Server(ThreadingWSGIServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep faults off the terminal, to which any client could write by them."""
        logger.debug("a scrape by %s failed", client_address, exc_info=True)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 30.0  # of a client that sends nothing

    def log_message(self, *_: Any) -> None:
        """Keep no log of scrapes."""


def serve(registry: CollectorRegistry, section: MetricsSection) -> str:
    """Serve a registry, in threads that end with the process.

    Args:
        registry: the registry.
        section: its port, address, token and certificate.

    Returns:
        The address to scrape.

    Raises:
        PenstockError: the port is in use or can't be listened on, or a file can't be read.
    """
    app = make_wsgi_app(registry)
    if section.token_file is not None:
        app = guarded(app, _token(Path(section.token_file)))
    context = None if section.certificate is None else _context(section.certificate, section.key)
    port = 0 if section.port == "auto" else section.port
    server_class = _Server6 if ip_address(section.address).version == 6 else _Server
    try:
        server = make_server(section.address, port, app, server_class, _Handler)
    except OSError as error:
        place = "localhost" if section.is_local else section.address
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise PenstockError(f"metrics.address: this machine has no address {section.address}") from error
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"can't be listened on ({error.strerror})"
        raise PenstockError(
            f"metrics.port: {section.port} {reason} on {place}: give another one, or auto for a free one"
        ) from error
    if context is not None:
        # The handshake is left to the thread of each connection: a client that never shakes hands blocks no other.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = socket.gethostname() if ip_address(section.address).is_unspecified else section.address
    host = f"[{host}]" if ":" in host else host
    return f"{'http' if context is None else 'https'}://{host}:{server.server_port}/metrics"


def guarded(app: App, token: bytes) -> App:
    """An app that answers only requests with a token.

    Args:
        app: the app, of WSGI.
        token: what the header `Authorization` must hold after `Bearer`.

    Returns:
        The app, which answers 401 to a request without a token, and 403 to one with another token.
    """

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer"), ("Content-Length", "0")])
            return []
        if not hmac.compare_digest(given.strip().encode("latin-1"), token):  # as WSGI decodes it
            start_response("403 Forbidden", [("Content-Length", "0")])
            return []
        return app(environ, start_response)

    return answer


def _token(path: Path) -> bytes:
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise PenstockError(f"metrics.token_file: {path} can't be read: {error.strerror}") from error
    if not token or not all(33 <= byte <= 126 for byte in token):
        raise PenstockError(
            f"metrics.token_file: {path} holds no token: one word of ASCII, as `openssl rand -hex 32` writes"
        )
    return token


def _context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, password="")  # else OpenSSL asks the terminal for one
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise PenstockError(
            f"metrics.certificate: {certificate} with the key {key} can't be used ({reason}): give both as PEM, "
            "the key without a password"
        ) from error
    return context
