"""The dashboard of a Ray cluster, which takes jobs."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError

ANSWERS_WITHIN_S = 30.0


class Dashboard:
    """Ray's interface for jobs, over HTTP and with the cluster's token.

    Ray's own client is a part of `ray[default]`, which the machine that launches can do without.

    Args:
        url: http://host:port, or https.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")

    def require_ready(self) -> None:
        """Check that it answers. Raises PenstockError."""
        if not isinstance(answer := self._call("GET", "/api/version"), dict) or "ray_version" not in answer:
            raise self._stranger()

    def submit(self, name: str, entrypoint: str, environment: dict[str, str]) -> None:
        """Submit a job.

        Args:
            name: what to call it.
            entrypoint: a command of the shell, which runs on the head.
            environment: variables of the job.

        Raises:
            PenstockError: it is refused.
        """
        job = {"submission_id": name, "entrypoint": entrypoint, "runtime_env": {"env_vars": environment}}
        self._call("POST", "/api/jobs/", job)

    def status(self, name: str) -> str | None:
        """The status of a job, in Ray's words; None if it knows of none.

        Raises PenstockError.
        """
        answer = self._call("GET", f"/api/jobs/{name}")
        return None if answer is None else answer["status"]

    def stop(self, name: str) -> None:
        """Have Ray send SIGTERM to a job, and kill it later. Raises PenstockError."""
        self._call("POST", f"/api/jobs/{name}/stop", {})

    def logs(self, name: str) -> str:
        """What a job has printed. Raises PenstockError."""
        answer = self._call("GET", f"/api/jobs/{name}/logs")
        return "" if answer is None else answer["logs"]

    def _call(self, method: str, path: str, content: Any = None) -> Any:
        """The answer to a request; None where there is no such thing."""
        headers = {"Content-Type": "application/json"}
        if token := _token():
            headers["Authorization"] = f"Bearer {token}"
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=ANSWERS_WITHIN_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404 and method == "GET":
                return None
            if error.code == 404:
                raise PenstockError(f"the Ray cluster at {self.url} takes no jobs: it needs ray[default]") from error
            if error.code in (401, 403):
                raise PenstockError(
                    f"our token is missing or not that of the Ray cluster at {self.url}: set RAY_AUTH_TOKEN to the one "
                    "that it was started with"
                ) from error
            said = error.read().decode(errors="replace").strip().splitlines() or [error.reason]
            raise PenstockError(f"the Ray cluster at {self.url} refuses: {said[-1]}") from error
        except OSError as error:  # URLError too
            reason = getattr(error, "reason", error)
            raise PenstockError(f"no dashboard of Ray answers at {self.url}: {reason}") from error
        except ValueError as error:
            raise self._stranger() from error

    def _stranger(self) -> PenstockError:
        return PenstockError(f"what answers at {self.url} is no dashboard of Ray")


def _token() -> str | None:
    """The token, from where Ray itself looks for it."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
