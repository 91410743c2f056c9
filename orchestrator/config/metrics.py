"""The keys of the endpoint for Prometheus."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from penstock.orchestrator.config.sections import Section


class MetricsSection(Section):
    """The Prometheus endpoint."""

    port: Annotated[int, Field(gt=0, lt=65536)] | Literal["auto"] = "auto"
    """Port of the [Prometheus endpoint](../metrics.md#prometheus).

    `auto` takes a free one; a port that was asked for and is in use is an error.
    """
    address: str = "127.0.0.1"
    """IP address that it listens on; `0.0.0.0` stands for all of the machine's.

    An address that other machines can reach requires a token.
    """
    token_file: str | None = None
    """File with a word that scrapes must send as bearer token.

    Paths of files are relative to the YAML file. The token is in no file of the run.
    """
    certificate: str | None = None
    """File with a certificate (PEM) for TLS; give `key` with it.

    Without TLS the metrics and the token can be read on the network.
    """
    key: str | None = None
    """File with the certificate's key (PEM), without a password."""

    @model_validator(mode="after")
    def _is_guarded(self) -> Self:
        try:
            is_local = self.is_local
        except ValueError:
            raise ValueError(f"address = {self.address} is no IP address: give one, such as 0.0.0.0") from None
        if not is_local and self.token_file is None:
            raise ValueError(
                f"address = {self.address} can be reached by other machines: give token_file, a file with a word "
                "that scrapes must send"
            )
        if (self.certificate is None) != (self.key is None):
            raise ValueError("give certificate and key together")
        return self

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return ip_address(self.address).is_loopback

    def beside(self, folder: Path) -> Self:
        """The section with absolute paths.

        Args:
            folder: the folder that relative ones start from.
        """
        names = [name for name in ("token_file", "certificate", "key") if getattr(self, name) is not None]
        paths = {name: str((folder / Path(getattr(self, name)).expanduser()).absolute()) for name in names}
        return self.model_copy(update=paths)
