"""The PCA codec of the README on real radiographs: what 256 coefficients at 256x256 are worth on films of other patients."""

import csv
from functools import partial

import pytest
import torch

from engine import metrics
from engine.config import DecodeConfig
from engine.decode.choose import build_decoder
from engine.encode.codec import load_codec
from engine.records import ImageRef
from engine.resample import resize_film
from engine.source.opening import read_bytes
from trainers.tasks.pca import fit_pca


@pytest.mark.films
@pytest.mark.slow
def test_reaches_26_db_at_film_size(films, tmp_path):
    report = fit_pca(str(films / "train.csv"), tmp_path / "pca")
    assert (report.films, report.failed, report.components) == (643, 0, 256)
    codec = load_codec(tmp_path / "pca")
    assert sum(file.stat().st_size for file in (tmp_path / "pca").iterdir()) < 34 * 2**20
    with open(films / "manifest.csv", newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file) if row["width"] == row["height"] == "1024" and row["source"] == "nih"]
    refs = [ImageRef(row, str(row), str(films / path)) for row, path in enumerate(paths)]
    read = partial(read_bytes, max_bytes=2**26)
    decoder = build_decoder(codec.recipe, DecodeConfig(decoder="cpu"), read=read, batch_size=16, film_size=1024)
    psnr = []
    for batch in decoder.batches(refs):
        stored = codec.encode(batch.pixels).half().float()
        rebuilt = resize_film(codec.generate(stored), 1024)
        psnr.append(metrics.psnr(metrics.to_unit(rebuilt), metrics.to_unit(batch.films)))
    decoder.close()
    assert len(torch.cat(psnr)) == 85
    assert torch.cat(psnr).mean() > 26
