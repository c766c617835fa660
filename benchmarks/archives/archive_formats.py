"""Codes [N, 512] in files of the kinds that people keep them in, and how each is opened, asked for one row, and read as a whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.archives.archive_made import NUMBERS, Codes, make_archive

CHUNK_ROWS = 64  # of HDF5: 64 KiB


@dataclass(frozen=True, kw_only=True)
class Format:
    """One kind of file, `file` by name. `open` gives a handle with a `shape`, which `row` asks for one code; `read` begins at the path.

    `write` is told the rows of a shard, which are those of a group of Parquet too. `package`: what it needs beyond latentray; `most_rows`:
    with how many it can be made here, and `because`.
    """

    name: str
    file: str
    write: Callable[[str, Codes, int], None]
    open: Callable[[str], Any]
    row: Callable[[Any, int], np.ndarray[Any, Any]]
    read: Callable[[str], np.ndarray[Any, Any]]
    package: str = ""
    most_rows: int | None = None
    because: str = ""

    def lacking(self, rows: int) -> str:
        """Why it cannot be measured here with so many rows, "" where it can."""
        if self.package and find_spec(self.package) is None:
            return f"needs a package that is not installed: {self.package}"
        return self.because if self.most_rows is not None and rows > self.most_rows else ""


def _open_codes(path: str) -> Any:
    from engine.archive.code_reader import open_codes

    return open_codes(path)


def _open_xarray(path: str) -> Any:
    from engine.archive.reader import open_archive

    return open_archive(path)["latent"]


class _Folder:
    """A file a film; `names` in order, so that a row is found."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.names = sorted(os.listdir(path))
        self.shape = (len(self.names), *np.load(f"{path}/{self.names[0]}").shape)

    def __getitem__(self, row: int) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = np.load(f"{self.path}/{self.names[row]}")
        return found


def _write_folder(path: str, codes: Codes, shard_rows: int) -> None:
    Path(path).mkdir()
    for row, code in enumerate(codes):
        np.save(f"{path}/{row:08d}_000.npy", code)


def _read_folder(path: str) -> np.ndarray[Any, Any]:
    folder = _Folder(path)
    out = np.empty(folder.shape, dtype="f2")
    for row in range(len(out)):
        out[row] = folder[row]
    return out


def _write_hdf5(path: str, codes: Codes, **settings: Any) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("latent", data=codes, **settings)


def _open_hdf5(path: str) -> Any:
    import h5py

    return h5py.File(path, "r")["latent"]  # a dataset keeps its file open


def _gzip(path: str, codes: Codes, shard_rows: int) -> None:
    _write_hdf5(path, codes, chunks=True, compression="gzip", shuffle=True)


def _gzip_by_rows(path: str, codes: Codes, shard_rows: int) -> None:
    _write_hdf5(path, codes, chunks=(min(CHUNK_ROWS, len(codes)), NUMBERS), compression="gzip", shuffle=True)


def _lzf_by_rows(path: str, codes: Codes, shard_rows: int) -> None:
    _write_hdf5(path, codes, chunks=(min(CHUNK_ROWS, len(codes)), NUMBERS), compression="lzf", shuffle=True)


class _Parquet:
    """A file of one column of fixed-size lists in groups of as many rows as a shard has."""

    def __init__(self, path: str) -> None:
        import pyarrow.parquet as pq

        self.file = pq.ParquetFile(path)
        self.group_rows = self.file.metadata.row_group(0).num_rows
        self.shape = (self.file.metadata.num_rows, self.file.schema_arrow.field("latent").type.list_size)

    def __getitem__(self, row: int) -> np.ndarray[Any, Any]:
        group, at = divmod(row, self.group_rows)
        found: np.ndarray[Any, Any] = _as_rows(self.file.read_row_group(group, columns=["latent"]), first=at, count=1)[0]
        return found


def _as_rows(table: Any, *, first: int, count: int) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = table.column("latent").combine_chunks().slice(first, count).flatten().to_numpy()
    return found.reshape(-1, NUMBERS)


def _read_parquet(path: str) -> np.ndarray[Any, Any]:
    file = _Parquet(path)
    return _as_rows(file.file.read(), first=0, count=file.shape[0])


def _write_parquet(path: str, codes: Codes, shard_rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), NUMBERS)
    split = {"use_dictionary": False, "use_byte_stream_split": True}  # smaller than its defaults, and quicker
    pq.write_table(pa.table({"latent": column}), path, row_group_size=shard_rows, compression="zstd", **split)


def _write_tensor(path: str, codes: Codes, shard_rows: int) -> None:
    import torch

    torch.save(torch.from_numpy(codes), path)


def _open_tensor(path: str) -> Any:
    import torch

    return torch.load(path, weights_only=True)


LATENTRAY, XARRAY = "latentray, open_codes", "latentray, xarray"
_ALL = (
    Format(
        name=LATENTRAY,
        file="codes.zarr",
        write=make_archive,
        open=_open_codes,
        row=lambda codes, row: codes[row],
        read=lambda path: _open_codes(path).read(),
    ),
    Format(
        name=XARRAY,
        file="codes.zarr",
        write=make_archive,
        open=_open_xarray,
        row=lambda codes, row: codes[row].to_numpy(),
        read=lambda path: _open_xarray(path).to_numpy(),
    ),
    Format(
        name="folder of .npy",
        file="npy",
        write=_write_folder,
        open=_Folder,
        row=lambda folder, row: folder[row],
        read=_read_folder,
        most_rows=200_000,
        because="a million files take 4 GB and minutes on a laptop's disk; see the smaller sizes",
    ),
    *(
        Format(
            name=f"HDF5, {name}",
            file=f"{name}.h5",
            write=write,
            open=_open_hdf5,
            row=lambda data, row: data[row],
            read=lambda path: _open_hdf5(path)[:],
            package="h5py",
        )
        for name, write in (("gzip", _gzip), (f"gzip by {CHUNK_ROWS}", _gzip_by_rows), (f"lzf by {CHUNK_ROWS}", _lzf_by_rows))
    ),
    Format(
        name="Parquet, zstd",
        file="codes.parquet",
        write=_write_parquet,
        open=_Parquet,
        row=lambda file, row: file[row],
        read=_read_parquet,
    ),
    Format(
        name=".pt tensor",
        file="codes.pt",
        write=_write_tensor,
        open=_open_tensor,
        row=lambda codes, row: codes[row].numpy(),
        read=lambda path: _open_tensor(path).numpy(),
    ),
)
FORMATS = {each.name: each for each in _ALL}
