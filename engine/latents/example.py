"""An analysis from start to end, cell by cell: open an archive, join labels, fit a probe, draw what it found.

    python engine/latents/example.py FILMS.zarr [--attribute cardiomegaly] [--out probe.png]

Nothing of latentray is needed but to read labels: the archive is plain Zarr, and codes are an array.
"""

# %% What is asked
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr


def main(argv: Sequence[str] | None = None) -> float:
    """Writes the picture; returns the area under the ROC curve of films that the probe was not fitted on."""
    parser = argparse.ArgumentParser(description="a probe of codes, step by step")
    parser.add_argument("archive", type=Path)
    parser.add_argument("--attribute", default="cardiomegaly")
    parser.add_argument("--labels", help="a table with ids; left out: what the archive's plan carries")
    parser.add_argument("--out", type=Path, default=Path("probe.png"))
    args = parser.parse_args(argv)

    # %% Codes: one row a film, and only films that have a code
    films = xr.open_zarr(args.archive)
    films = films.isel(sample=films.status.values == 1)
    codes = films.latent.values.reshape(films.sizes["sample"], -1).astype(np.float32)
    ids = [str(name) for name in films.sample_id.values]

    # %% Labels, matched by id
    from engine.labels import LabelSpec
    from engine.latents.film_labels import read_table

    spec = LabelSpec.parse(args.attribute)
    table = read_table(args.labels, args.archive, spec.columns)
    marks = spec.marks({column: [table[column].get(name) for name in ids] for column in spec.columns})
    known = np.array([mark is not None for mark in marks])
    codes, has = codes[known], np.array([bool(mark) for mark in marks if mark is not None])

    # %% A probe, judged on films that it did not see
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score, roc_curve
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000))
    chances = cross_val_predict(probe, codes, has, cv=5, method="predict_proba")[:, 1]
    area = float(roc_auc_score(has, chances))

    # %% What it found
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for value, name, colour in ((False, f"without {spec.name}", "#0072b2"), (True, f"with {spec.name}", "#d55e00")):
        left.hist(chances[has == value], bins=20, range=(0, 1), alpha=0.6, label=f"{name} ({int((has == value).sum())})", color=colour)
    left.set(xlabel="what the probe says", ylabel="films")
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    false, true, _ = roc_curve(has, chances)
    right.plot(false, true, color="#009e73")
    right.plot([0, 1], [0, 1], color="#999999", linestyle=":")
    right.set(xlabel="1 - specificity", ylabel="sensitivity", title=f"area {area:.3f}, {len(has)} films, codes of {codes.shape[1]} numbers")
    figure.savefig(args.out, dpi=120)
    print(f"{args.out}: area under the curve {area:.3f}")
    return area


if __name__ == "__main__":
    main()
