"""A store of samples: a Zarr group, and in it a group per shard.

The attributes of the group say what the samples are. A shard holds whole simulations, one array [N, *] per quantity,
and appears when it is complete: what a writer was killed in is not there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from penstock import __version__
from penstock.arrays import layout_json, zarr_store
from penstock.arrays.ragged import padded
from penstock.errors import PenstockError
from penstock.layout import Layout
from penstock.messages import Chunk, whole_simulations

KIND = "penstock samples"
FORMAT = 1
# A shard is written when it has this size, or after this time: this is what a killed writer loses.
SHARD_BYTES = 64_000_000
SHARD_SECONDS = 60.0
REMEDY = "remove this shard, and `penstock generate` solves its simulations again"
MAX_QUOTED = 200  # characters of two values that differ, in a message
HINT = "`penstock generate CONFIG --num N --output STORE` writes one"


class SampleStore:
    """A store of samples that is there.

    Args:
        path: the store.
        num_shards: how many of its first shards count; all of them where absent.

    Raises:
        PenstockError: there is none, it is damaged, or has fewer shards.
    """

    def __init__(self, path: Path, num_shards: int | None = None):
        self.path = path
        about = _attributes(path)
        if about is None or about.get("kind") != KIND:
            raise PenstockError(f"{path} is no store of samples: {HINT}")
        if about.get("format") != FORMAT:
            raise PenstockError(f"{path} has format {about.get('format')!r}, and this penstock reads {FORMAT}")
        try:
            self.layout = layout_json.from_json(about["layout"], lambda number: partial(self._mesh, number))
            self.num_steps = int(about["num_steps"])
            self.origin: Mapping[str, Any] = about["origin"]
            """What the samples depend on."""
            found = sorted(path.glob("shard-*"))
            if num_shards is not None and len(found) < num_shards:
                raise PenstockError(f"{path} has {len(found)} shards, and {num_shards} are to be read: some are gone")
            self.shards = {shard.name: _attributes(shard) for shard in found[:num_shards]}
            """Attributes of the shards by name; `finished` are its simulations."""
            if damaged := [name for name, attributes in self.shards.items() if attributes is None]:
                raise PenstockError(f"{path / damaged[0]} is damaged: it has no metadata of Zarr; {REMEDY}")
            finished = [simulation for shard in self.shards.values() for simulation in shard["finished"]]
            self.failed = {int(simulation) for shard in self.shards.values() for simulation in shard["failed"]}
            """The simulations that failed."""
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PenstockError(
                f"{path} is damaged: its metadata can't be used ({error!r}): generate it again"
            ) from error
        self.finished = set(finished)
        """The simulations whose samples are there."""
        if len(self.finished) < len(finished):
            raise PenstockError(f"{path} is damaged: a simulation is in two shards: generate it again")

    def read(self, shard: str) -> dict[str, np.ndarray]:
        """The arrays of a shard.

        Args:
            shard: its name.

        Returns:
            Arrays [N, *] by quantity, `simulation` and `step` of the rows, and what samples bring along.

        Raises:
            PenstockError: the shard is damaged.
        """
        arrays, _ = zarr_store.read(self.path / shard, remedy=REMEDY)
        return arrays

    def _mesh(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        arrays, _ = zarr_store.read(self.path, remedy="generate it again")
        points, cells = layout_json.mesh_names(number)
        return arrays[points], arrays[cells]


class SampleWriter:
    """Writes chunks of samples to a store, which is made if it is missing.

    Args:
        path: the store.
        layout: layout of the samples.
        num_steps: samples of every simulation, as the problem says.
        origin: what the samples depend on, as JSON; for a store that is there it must be the same.
        card: what a reader should know besides, as JSON.

    Raises:
        PenstockError: the store can't be written, or what is there is another one.
    """

    def __init__(self, path: Path, layout: Layout, num_steps: int, origin: Mapping[str, Any], card: Mapping[str, Any]):
        self._path = path
        self._layout = layout
        if not path.exists():
            described = layout_json.as_json(layout)
            about = {"kind": KIND, "format": FORMAT, "penstock": __version__, "origin": origin, "card": card}
            about |= {"layout": described, "num_steps": num_steps}
            zarr_store.write(path, layout_json.mesh_arrays(layout), about)
        self._store = SampleStore(path)
        theirs = self._store.origin
        for key, value in json.loads(json.dumps(origin)).items():
            if theirs.get(key) != value:
                values = f"{theirs.get(key)!r}, not {value!r}"
                values = f" ({values})" if len(values) < MAX_QUOTED else ""  # the text of a file says little
                another = "other" if key.endswith("s") else "another"
                raise PenstockError(f"{path} was generated with {another} {key}{values}: give another --output")
        self.ended = self._store.finished | self._store.failed
        """The simulations that are done with."""
        self._num_shards = 1 + max((int(name.rpartition("-")[2]) for name in self._store.shards), default=-1)
        self._pending: list[Chunk] = []
        self._since = time.monotonic()

    @property
    def has_finished(self) -> bool:
        """Whether a simulation has finished that is in no shard yet."""
        return any(chunk.finished for chunk in self._pending)

    def add(self, chunk: Chunk) -> None:
        """Take a chunk, and write a shard if one is due.

        Raises PenstockError where it can't be written.
        """
        self._pending.append(chunk)
        num_bytes = sum(each.num_bytes for each in self._pending)
        if num_bytes >= SHARD_BYTES or time.monotonic() - self._since >= SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the simulations that have ended as a shard.

        Raises PenstockError where it can't be written.
        """
        self._since = time.monotonic()
        finished = [simulation for chunk in self._pending for simulation in chunk.finished]
        failed = {simulation: reason for chunk in self._pending for simulation, reason in chunk.failed.items()}
        if not finished and not failed:
            return
        rows, simulations, steps = whole_simulations(self._pending)
        arrays = {"simulation": simulations, "step": steps}
        if len(simulations):
            arrays |= zarr_store.by_name({name: padded(each) for name, each in rows.items()}, self._layout)
        name = f"shard-{self._num_shards:06d}"
        zarr_store.write(self._path / name, arrays, {"finished": finished, "failed": failed})
        self._num_shards += 1
        self.ended |= {*finished, *failed}
        self._pending = [left for chunk in self._pending if len(left := _without(chunk, self.ended))]


def _without(chunk: Chunk, ended: set[int]) -> Chunk:
    """The rows of the simulation that goes on."""
    left = ~np.isin(chunk.simulations, list(ended))
    return Chunk(
        arrays={name: rows[left] for name, rows in chunk.arrays.items()},
        simulations=chunk.simulations[left],
        steps=chunk.steps[left],
    )


def _attributes(group: Path) -> dict[str, Any] | None:
    """The attributes of a Zarr group; None where there are none.

    They are read without Zarr, which takes a while to import in each process.
    """
    try:
        metadata = json.loads((group / "zarr.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise PenstockError(f"{group} can't be read: {error.strerror}") from error
    attributes = metadata.get("attributes") if isinstance(metadata, dict) else None
    return attributes if isinstance(attributes, dict) else None
