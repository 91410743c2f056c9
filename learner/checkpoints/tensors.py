"""Files of tensors in the safetensors format, written and summed block by block.

The format is described at https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from penstock.errors import PenstockError
from penstock.learner.checkpoints.rows import Rows

BLOCK_BYTES = 1 << 22  # most bytes that are copied, summed and written at a time

DTYPE_NAMES = {  # safetensors' names
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(folder: Path, part: str, contents: Mapping) -> dict:
    """Write <part>.safetensors.

    The file holds the header's length as 8 bytes, the header as JSON, and the tensors' bytes without gaps.

    Args:
        folder: folder of the file.
        part: name of the file without its suffix.
        contents: tensors and `Rows` by name; other values are left out.

    Returns:
        The file's size as "bytes", and its checksum as "crc32".

    Raises:
        PenstockError: safetensors can't hold a tensor's data type.
        OSError: the file can't be written.
    """
    tensors = {name: v if isinstance(v, Rows) else Rows(v) for name, v in contents.items() if is_tensor(v)}
    # The widest items come first, so that in a memory map each tensor begins at a multiple of its item's size.
    tensors = dict(sorted(tensors.items(), key=lambda named: -named[1].dtype.itemsize))
    header, end = {}, 0
    for name, rows in tensors.items():
        if rows.dtype not in DTYPE_NAMES:
            raise PenstockError(f"{name} is {str(rows.dtype).removeprefix('torch.')}, which safetensors can't hold")
        begin, end = end, end + rows.nbytes
        header[name] = {"dtype": DTYPE_NAMES[rows.dtype], "shape": list(rows.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    checksum = 0
    with (folder / f"{part}.safetensors").open("wb") as file:
        for block in chain([len(text).to_bytes(8, "little"), text], *map(_blocks, tensors.values())):
            file.write(block)
            checksum = zlib.crc32(block, checksum)
        return {"bytes": file.tell(), "crc32": checksum}


def _blocks(rows: Rows) -> Iterator[np.ndarray]:
    """Yield the rows' bytes in blocks, uint8; without an index they are not copied."""
    if not rows.nbytes:
        return
    tensor = rows.tensor.detach().contiguous()
    if rows.index is None:
        for block in tensor.view(-1).view(torch.uint8).split(BLOCK_BYTES):
            yield block.cpu().numpy()
    elif (row_bytes := rows.nbytes // len(rows.index)) > BLOCK_BYTES:
        for row in rows.index.tolist():
            yield from _blocks(Rows(tensor[row]))
    else:
        bytes_by_row = tensor.view(len(tensor), -1).view(torch.uint8)
        for index in rows.index.split(BLOCK_BYTES // row_bytes):
            if tensor.is_cuda:
                yield bytes_by_row[index.to(tensor.device)].view(-1).cpu().numpy()
            else:  # NumPy gathers in this thread alone and leaves the other cores to training
                yield np.take(bytes_by_row.numpy(), index.numpy(), axis=0).reshape(-1)


def is_tensor(value: object) -> bool:
    """Whether a value is saved as a tensor, and not as JSON."""
    return isinstance(value, Tensor | Rows)


def checksum_of(file: Path) -> int:
    """Return the CRC-32 of a file, read block by block."""
    checksum, block = 0, memoryview(bytearray(BLOCK_BYTES))
    with file.open("rb", buffering=0) as stream:
        while num_bytes := stream.readinto(block):
            checksum = zlib.crc32(block[:num_bytes], checksum)
    return checksum
