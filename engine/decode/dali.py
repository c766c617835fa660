"""The DALI decoder: whole batches of ordinary films through NVIDIA DALI, on a GPU where there is one; every other film one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from engine.config import DecodeConfig
from engine.decode.cpu import num_threads
from engine.decode.film import Film, Plain, SealedFilm, to_gray
from engine.decode.formats import settle_libraries
from engine.decode.resample import prepare_tensor
from engine.decode.stretch import SingleFilm, Stretch, depth_for, read_ahead, stretches
from engine.errors import ConfigError
from engine.recipe import PixelRecipe
from engine.records import ImageRef, PixelBatch

# What to ask DALI for, by kind of samples. Never output_type ANY_DATA: with it, DALI 2.4 writes past the end of its buffer for a gray JPEG.
_OUTPUTS: dict[Plain, tuple[str, str]] = {
    "gray8": ("GRAY", "UINT8"),
    "gray16": ("GRAY", "UINT16"),
    "rgb8": ("RGB", "UINT8"),
    "rgb16": ("RGB", "UINT16"),
}


def import_dali() -> Any:
    """The module nvidia.dali; raises ConfigError where it cannot be imported."""
    try:
        import nvidia.dali as dali
        import nvidia.dali.fn  # noqa: F401  (makes `dali.fn` there)
    except (ImportError, OSError) as error:  # OSError: the package is there, a library that it links is not
        raise ConfigError(f"decoder dali needs NVIDIA DALI: pip install latentray[gpu] ({type(error).__name__})") from None
    return dali


class DaliDecoder:
    """Decodes with DALI on `device` (None: its CPU operators). Pixels lie on that device.

    One bad file spoils a whole DALI batch, so headers are checked first, and a batch that still fails is decoded film by film on the
    thread pool's path, which alone says what is wrong with a film. `num_rebuilds` counts such batches: each costs a new pipeline.
    """

    name = "dali"

    def __init__(
        self,
        recipe: PixelRecipe,
        cfg: DecodeConfig,
        *,
        read: Callable[[str], bytes],
        batch_size: int,
        film_size: int | None,
        device: torch.device | None = None,
    ) -> None:
        settle_libraries()
        threads = num_threads(cfg)
        self.num_rebuilds = 0
        self._dali = import_dali()
        self._single = SingleFilm(recipe, cfg, read=read)
        self._batch_size, self._film_size, self._device = batch_size, film_size, device
        self._threads, self._depth = threads, depth_for(threads, batch_size)
        self._pipelines: dict[Plain, Any] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._feeder = ThreadPoolExecutor(1, thread_name_prefix="dali")  # pipelines belong to one thread

    def batches(self, refs: Sequence[ImageRef]) -> Iterator[PixelBatch]:
        """One batch for each stretch of `batch_size` refs, in order; the next ones are decoded while the caller works."""
        return read_ahead((self._begin(part) for part in stretches(refs, self._batch_size)), self._depth)

    def close(self) -> None:
        """Ends the threads and frees the pipelines."""
        self._feeder.shutdown(cancel_futures=True)
        self._pool.shutdown(cancel_futures=True)
        self._single.close()
        self._pipelines.clear()

    def _begin(self, refs: Sequence[ImageRef]) -> _DaliJob:
        stretch = Stretch(refs, self._single.recipe.resolution, film_size=self._film_size, device=self._device)
        loads = [self._pool.submit(self._single.load, stretch, index) for index in range(len(refs))]
        return _DaliJob(loads, self._feeder.submit(self._fill, stretch, loads))

    def _fill(self, stretch: Stretch, loads: list[Future[SealedFilm | None]]) -> PixelBatch:
        """Waits for the headers, gives DALI what is ordinary, and the pool the rest and whatever DALI refused."""
        sealed = {index: film for index, load in enumerate(loads) if (film := load.result()) is not None}
        waiting = [self._pool.submit(self._single.develop, stretch, index, film) for index, film in sealed.items() if not film.header.plain]
        for kind in _OUTPUTS:
            group = [index for index, film in sealed.items() if film.header.plain == kind]
            arrays = self._decode(kind, [sealed[index].data for index in group]) if group else []
            if arrays is None:
                waiting += [self._pool.submit(self._single.develop, stretch, index, sealed[index]) for index in group]
                continue
            white = float(2 ** (self._single.recipe.bits or (16 if kind.endswith("16") else 8)) - 1)
            for index, array in zip(group, arrays, strict=True):
                waiting.append(self._pool.submit(self._write, stretch, index, array, white))
        for developed in waiting:
            developed.result()
        return stretch.to_batch()

    def _write(self, stretch: Stretch, index: int, samples: Any, white: float) -> None:
        """The recipe, where the samples [H, W, C] are: in NumPy as the thread pool does it, or on the GPU."""
        if isinstance(samples, torch.Tensor):
            prepare_tensor(samples, self._single.recipe, *stretch.slots(index), white=white)
        else:
            self._single.write(stretch, index, Film(to_gray(samples), white))

    def _decode(self, kind: Plain, files: list[bytes]) -> list[Any] | None:
        """Samples [H, W, C] of each file, NumPy or CUDA; None when DALI refuses any of them, after which its pipeline is thrown away."""
        try:
            if kind not in self._pipelines:
                self._pipelines[kind] = self._build(kind)
            pipeline = self._pipelines[kind]
            pipeline.feed_input("files", [np.frombuffer(data, dtype=np.uint8) for data in files])
            (decoded,) = pipeline.run()
            if self._device is None:
                return [np.array(decoded.at(index)) for index in range(len(files))]
            # A copy each: the pipeline overwrites its own buffers in the next run, on a stream of its own that does not wait for ours.
            copies = [from_dlpack(decoded[index]).clone() for index in range(len(files))]
            torch.cuda.current_stream(self._device).synchronize()  # so the copies must have been made, not only queued
            return copies
        # DALI raises whatever its operators raise, as RuntimeError or as any built-in class, and the pipeline is dead afterwards.
        except Exception:
            self._pipelines.pop(kind, None)
            self.num_rebuilds += 1
            return None

    def _build(self, kind: Plain) -> Any:
        """A pipeline from encoded bytes to samples of one kind, in the order they are fed, in batches of up to `batch_size`."""
        output, dtype = _OUTPUTS[kind]
        types, fn = self._dali.types, self._dali.fn
        on_gpu = self._device is not None
        # On a GPU: chroma as libjpeg upsamples it, and no hardware JPEG unit, which takes a share of a batch and rounds otherwise.
        options = {"jpeg_fancy_upsampling": True, "hw_decoder_load": 0.0} if on_gpu else {}
        pipeline = self._dali.Pipeline(
            batch_size=self._batch_size,
            num_threads=self._threads,
            device_id=self._device.index if self._device is not None else None,
            prefetch_queue_depth=1,
        )
        with pipeline:
            files = fn.external_source(name="files", dtype=types.UINT8, ndim=1)
            pipeline.set_outputs(
                fn.decoders.image(
                    files,
                    device="mixed" if on_gpu else "cpu",
                    output_type=getattr(types, output),
                    dtype=getattr(types, dtype),
                    adjust_orientation=False,  # films that must be turned take the other path
                    **options,
                )
            )
        pipeline.build()
        return pipeline


@dataclass(frozen=True, slots=True)
class _DaliJob:
    loads: list[Future[SealedFilm | None]]
    batch: Future[PixelBatch]

    def finish(self) -> PixelBatch:
        return self.batch.result()

    def cancel(self) -> None:
        # The feeder waits for loads, so these must not be cancelled under one that has begun.
        if self.batch.cancel():
            for load in self.loads:
                load.cancel()
