"""Viewers of a run: a terminal, a scraper, and an open page of the dashboard."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import urllib.request
from contextlib import suppress
from email.message import Message
from html import unescape
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from penstock.errors import PenstockError

COLUMNS, ROWS = 120, 40
SCRAPE_EVERY_S = 5.0
ANSWER_WITHIN_S = 60.0
ETAGS = re.compile(r'<meta name="etags" content="([^"]*)">')


class Terminal:
    """A pseudo terminal of COLUMNS whose screen is read as fast as it is written."""

    def __init__(self):
        self._ours, self.end = pty.openpty()
        """`end` is what a program has as its standard output."""
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.num_bytes = 0
        """Bytes that were written to it."""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close it once no program has it any more."""
        os.close(self.end)
        self._thread.join()
        os.close(self._ours)

    def _read(self) -> None:
        with suppress(OSError):  # EIO: the last program has closed its end
            while text := os.read(self._ours, 65536):
                self.num_bytes += len(text)


class Repeated:
    """Repeats something in a thread, after the pause that each time asks for."""

    def __init__(self):
        self.faults: list[str] = []
        """What went wrong."""
        self.count = 0
        """How many times it was done."""
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._ends.set()
        self._thread.join()

    def once(self) -> float:
        """Do it, and return the seconds until it is due again."""
        raise NotImplementedError

    def _work(self) -> None:
        while not self._ends.is_set():
            try:
                wait = self.once()
                self.count += 1
            except (OSError, HTTPException) as error:  # a run that ends takes its endpoint along
                self.faults.append(str(error))
                wait = SCRAPE_EVERY_S
            self._ends.wait(wait)


class Scraper(Repeated):
    """Scrapes as Prometheus does.

    Args:
        address: of the run's metrics.
    """

    def __init__(self, address: str):
        super().__init__()
        self._address = address

    def once(self) -> float:
        with urllib.request.urlopen(self._address, timeout=ANSWER_WITHIN_S) as answer:
            answer.read()
        return SCRAPE_EVERY_S


class OpenPage(Repeated):
    """A browser that has the page of a run open, and does what live.js does.

    Args:
        address: what `penstock dashboard` prints.
    """

    def __init__(self, address: str):
        super().__init__()
        parts = urlsplit(address)
        self._connection = HTTPConnection(parts.hostname, parts.port, timeout=ANSWER_WITHIN_S)  # kept, as by browsers
        self._cookie = ""
        _, headers = self._get(f"{parts.path}?{parts.query}")
        self._cookie, self._base = headers["Set-Cookie"].partition(";")[0], headers["Location"]
        text, _ = self._get(self._base)
        if (found := ETAGS.search(text)) is None:
            raise PenstockError(f"{self._base} is no page of the dashboard")
        self._known: dict[str, str] = json.loads(unescape(found[1]))
        self.num_sections = 0
        """Sections that were asked for because they had changed."""

    def once(self) -> float:
        text, _ = self._get(f"{self._base}state")
        now: dict[str, Any] = json.loads(text)
        for key, etag in now["etags"].items():
            if self._known.get(key) != etag:
                _, headers = self._get(f"{self._base}section/{key}")
                self._known[key] = headers["ETag"]
                self.num_sections += 1
        return now["next_ms"] / 1e3

    def _get(self, path: str) -> tuple[str, Message]:
        self._connection.request("GET", path, headers={"Cookie": self._cookie})
        answer = self._connection.getresponse()
        text = answer.read().decode()
        if answer.status >= 400:
            raise OSError(f"{path}: {answer.status} {text.strip()}")
        return text, answer.headers


def address_of(dashboard: subprocess.Popen[str]) -> str:
    """The address that a dashboard prints, read from its standard output."""
    for line in dashboard.stdout:
        if line.startswith("http://"):
            return line.strip()
    raise PenstockError(f"the dashboard ended with exit code {dashboard.wait()} and no address", exit_code=1)
