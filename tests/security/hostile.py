"""Files that run code where they are unpickled: what they run makes a folder, by which one sees that it ran."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


class Payload:
    """Unpickled, it makes the folder `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.marker,)


def plain(marker: Path) -> bytes:
    return pickle.dumps({"latent": Payload(marker)})


def oldest(marker: Path) -> bytes:
    return pickle.dumps(Payload(marker), protocol=0)


def torch_zip(marker: Path) -> bytes:
    stream = io.BytesIO()
    torch.save({"state_dict": {"w": torch.zeros(2)}, "more": Payload(marker)}, stream)
    return stream.getvalue()


def torch_legacy(marker: Path) -> bytes:
    stream = io.BytesIO()
    torch.save({"w": torch.zeros(2), "more": Payload(marker)}, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def object_arrays(marker: Path) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, w=np.array([Payload(marker)], dtype=object))
    return stream.getvalue()


def object_array(marker: Path) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([Payload(marker)], dtype=object))
    return stream.getvalue()


def old_torch_tar(marker: Path) -> bytes:
    """As torch wrote before its version 0.2: a tar of pickles, which its reader still knows."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            data = plain(marker)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def after_a_header(marker: Path) -> bytes:
    """Begins as safetensors does, and goes on as a pickle."""
    return (2).to_bytes(8, "little") + b"{}" + plain(marker)


DISGUISES = (plain, oldest, torch_zip, torch_legacy, object_arrays, object_array, old_torch_tar, after_a_header)


def would_run(data: bytes, marker: Path) -> bool:
    """Whether the payload runs where somebody is careless; the folder is removed again."""
    for careless in (
        lambda: pickle.loads(data),
        lambda: torch.load(io.BytesIO(data), weights_only=False),
        lambda: dict(np.load(io.BytesIO(data), allow_pickle=True)),
        lambda: pickle.loads(data[10:]),
        lambda: pickle.loads(data[tarfile.BLOCKSIZE :]),
    ):
        try:
            careless()
        except Exception:  # of another format than this one reads
            continue
        finally:
            ran = marker.is_dir()
        if ran:
            break
    if ran:
        marker.rmdir()
    return ran
