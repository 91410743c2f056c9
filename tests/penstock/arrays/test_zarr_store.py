"""A store gives back what was written, or says in one line that it can't."""

import json
import os
import shutil

import numpy as np
import pytest

from penstock.arrays import zarr_store
from penstock.arrays.ragged import padded
from penstock.errors import PenstockError
from penstock.geometry import Grid, Points
from penstock.layout import FieldSpec, Layout, Sample

LAYOUT = Layout(
    (
        FieldSpec(name="a", on=Grid((4, 5))),
        FieldSpec(name="t"),
        FieldSpec(name="b", on=Grid((4, 5))),
        FieldSpec(name="s"),
    ),
    (FieldSpec(name="u", on=Grid((4, 5))), FieldSpec(name="v", on=Grid((4, 5)))),
)
ATTRIBUTES = {"delivered": [[0, 3]], "failed": {"3": "singular"}}


def groups():
    generator = np.random.default_rng(0)
    return {name: generator.random((3, *shape), np.float32) for name, shape in LAYOUT.shapes.items()}


def named():
    return zarr_store.by_name(groups(), LAYOUT) | {"simulation": np.arange(3), "empty": np.empty((0, 2), np.float32)}


def written(folder):
    path = folder / "store.zarr"
    zarr_store.write(path, named(), ATTRIBUTES)
    return path


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, strict=True)


def test_round_trip(tmp_path):
    arrays, attributes = zarr_store.read(written(tmp_path))
    assert_equal(arrays, named())
    assert attributes == ATTRIBUTES  # the checksums are the store's own


def test_a_store_is_replaced_as_a_whole(tmp_path):
    path = written(tmp_path)
    (tmp_path / ".store.zarr").mkdir()  # of a writer that was killed
    zarr_store.write(path, {"other": np.zeros(2)}, {})
    arrays, attributes = zarr_store.read(path)
    assert_equal(arrays, {"other": np.zeros(2)})
    assert attributes == {} and os.listdir(tmp_path) == ["store.zarr"]


def test_by_block_is_the_inverse_of_by_name():
    fields = zarr_store.by_name(groups(), LAYOUT)
    assert {name: array.shape for name, array in fields.items()} == {
        **dict.fromkeys("abuv", (3, 4, 5)),
        **dict.fromkeys("ts", (3,)),
    }
    assert_equal(zarr_store.by_block(fields, LAYOUT), groups())


def chunk_of(path):
    (file,) = (file for file in (path / "a").rglob("*") if file.is_file() and file.name != "zarr.json")
    return file


def flip_a_bit(file):
    contents = bytearray(file.read_bytes())
    contents[-1] ^= 1
    file.write_bytes(contents)


def swap_chunks(path):
    other = path / "b" / chunk_of(path).relative_to(path / "a")
    chunk_of(path).write_bytes(other.read_bytes())


def change_metadata(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


DAMAGE = {
    "a deleted chunk": lambda path: chunk_of(path).unlink(),
    "a truncated chunk": lambda path: chunk_of(path).write_bytes(chunk_of(path).read_bytes()[:-5]),
    "an empty chunk": lambda path: chunk_of(path).write_bytes(b""),
    "garbage for a chunk": lambda path: chunk_of(path).write_bytes(b"garbage" * 50),
    "a flipped bit": lambda path: flip_a_bit(chunk_of(path)),
    "another array's chunk": swap_chunks,
    "a folder for a chunk": lambda path: (chunk_of(path).unlink(), (path / "a" / "c" / "0" / "0" / "0").mkdir()),
    "a missing array": lambda path: shutil.rmtree(path / "a"),
    "a missing scalar": lambda path: shutil.rmtree(path / "t"),
    "an array without metadata": lambda path: (path / "a" / "zarr.json").unlink(),
    "an array's metadata empty": lambda path: (path / "a" / "zarr.json").write_text(""),
    "an array's metadata of another type": lambda path: (path / "a" / "zarr.json").write_text("[]"),
    "another shape": lambda path: change_metadata(path / "a" / "zarr.json", shape=[3, 5, 4]),
    "another data type": lambda path: change_metadata(path / "a" / "zarr.json", data_type="int32"),
    "a store without metadata": lambda path: (path / "zarr.json").unlink(),
    "the store's metadata empty": lambda path: (path / "zarr.json").write_text(""),
    "the store's metadata truncated": lambda path: (path / "zarr.json").write_text('{"attributes": {"cr'),
    "the store's metadata of another type": lambda path: (path / "zarr.json").write_text("[]"),
    "no checksums": lambda path: change_metadata(path / "zarr.json", attributes=ATTRIBUTES),
    "checksums of another type": lambda path: change_metadata(path / "zarr.json", attributes={"crc32": 3}),
    "an empty folder": lambda path: (shutil.rmtree(path), path.mkdir()),
    "a file": lambda path: (shutil.rmtree(path), path.write_text("not a store")),
    "nothing": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_told_in_one_line(tmp_path, damage):
    path = written(tmp_path)
    damage(path)
    with pytest.raises(PenstockError) as raised:
        zarr_store.read(path)
    message = str(raised.value)
    assert message.startswith(f"{path} is damaged: ") and "\n" not in message
    assert message.endswith("; remove it and resume: it is solved again")


def test_the_damaged_array_is_named(tmp_path):
    path = written(tmp_path)
    chunk_of(path).unlink()
    with pytest.raises(PenstockError, match="the array a was changed"):
        zarr_store.read(path)
    shutil.rmtree(path / "a")
    with pytest.raises(PenstockError, match="the array a can't be read"):
        zarr_store.read(path)


CLOUD = Points(9, 2, max_edges=6)
ON_POINTS = Layout(
    (FieldSpec(name="a", on=CLOUD), FieldSpec(name="g", on=Grid((3, 2), name="plain"), components=2)),
    (FieldSpec(name="shift", on=CLOUD, components=2), FieldSpec(name="p", on=CLOUD), FieldSpec(name="drag")),
)


def test_components_points_and_edges_come_back_as_they_were_packed(tmp_path):
    generator = np.random.default_rng(0)
    samples = [
        Sample(
            inputs={"a": generator.random(count), "g": generator.random((2, 3, 2))},
            outputs={"shift": generator.random((2, count)), "p": generator.random(count), "drag": count},
            geometry={
                "points": generator.random((count, 2)),
                "weights": generator.uniform(0.1, 1, count),
                "edges": np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)[:6],
            },
        )
        for count in (4, 7, 1)
    ]
    arrays = {name: padded(rows) for name, rows in ON_POINTS.pack(samples).items()}
    named = zarr_store.by_name(arrays, ON_POINTS)
    assert {name: array.shape for name, array in named.items()} == {
        "a": (3, 7),
        "g": (3, 2, 3, 2),
        "points": (3, 7, 2),
        "weights": (3, 7),
        "edges": (3, 6, 2),
        "shift": (3, 2, 7),
        "p": (3, 7),
        "drag": (3,),
    }
    np.testing.assert_allclose(named["points"][1], samples[1].geometry["points"], rtol=1e-6)
    zarr_store.write(tmp_path / "store.zarr", named, {})
    assert_equal(zarr_store.by_block(zarr_store.read(tmp_path / "store.zarr")[0], ON_POINTS), arrays)
    assert arrays["edges"].dtype == np.int32
