"""Fréchet distance: against the closed form with SciPy's matrix root and torchmetrics, in portions as in one go, and FID's weights file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from engine.errors import ConfigError
from engine.frechet import INCEPTION_FILE, Fid, FrechetDistance, Moments, fid, find_inception, frechet_distance, frechet_distances
from engine.networks.inception import InceptionV3
from engine.refine.weight_files import random_weights


def moments(vectors: Tensor) -> Moments:
    result = Moments(vectors.shape[1])
    result.add(vectors)
    return result


def samples(count: int, dim: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=draw, dtype=torch.float64)
    return torch.randn(count, dim, generator=draw, dtype=torch.float64) @ mixing + seed


def closed_form(a: Tensor, b: Tensor) -> float:
    c1, c2 = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    root = scipy.linalg.sqrtm(c1 @ c2)
    means = np.square(a.numpy().mean(0) - b.numpy().mean(0)).sum()
    return float(means + np.trace(c1) + np.trace(c2) - 2 * np.trace(root).real)


class Corners(nn.Module):
    """Features of a film for tests: 8x8 pixels of it, mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mixing", torch.randn(64, 12, generator=torch.Generator().manual_seed(0)))

    def forward(self, films: Tensor) -> Tensor:
        assert isinstance(self.mixing, Tensor)
        return films[:, 0, :8, :8].flatten(1).double() @ self.mixing.double()


@pytest.mark.parametrize("dim", [1, 3, 40])
def test_equals_the_closed_form(dim: int) -> None:
    a, b = samples(200, dim, 1), samples(150, dim, 2)
    expected = closed_form(a, b) if dim > 1 else float((a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2)
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(moments(b), moments(a)) == pytest.approx(expected, rel=1e-9)


def test_gaussians_that_share_their_axes() -> None:
    """With diagonal covariances it is the sum over axes of squared differences of means and of deviations."""
    base = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    unit = base * (3 / 4) ** 0.5  # deviation 1, over count - 1
    a, b = unit * torch.tensor([2.0, 5.0]), unit * torch.tensor([3.0, 1.0]) + torch.tensor([1.0, 2.0])
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(1 + 4 + 1 + 16, rel=1e-12)


def test_equal_sets_have_none_and_a_shift_its_square() -> None:
    a = samples(300, 30, 1)
    assert frechet_distance(moments(a), moments(a)) < 1e-9 * float(a.var(0).sum())
    assert frechet_distance(moments(a), moments(a + 0.5)) == pytest.approx(30 * 0.25, rel=1e-6)


def test_fewer_films_than_features() -> None:
    """Covariances without full rank: the root has complex rounding in SciPy, and none here."""
    a, b = samples(12, 40, 1), samples(9, 40, 2)
    across = (a - a.mean(0)) @ (b - b.mean(0)).T / (11 * 8) ** 0.5
    shared = torch.linalg.svdvals(across).sum()  # the trace of (C1 C2)^(1/2) from the films themselves
    expected = (a.mean(0) - b.mean(0)).square().sum() + a.var(0).sum() + b.var(0).sum() - 2 * shared
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(float(expected), rel=1e-7)


def test_features_that_do_not_vary() -> None:
    ones = torch.ones(5, 4, dtype=torch.float64)
    assert frechet_distance(moments(ones), moments(3 * ones)) == pytest.approx(16)
    assert frechet_distance(moments(ones), moments(ones)) == 0


def test_a_matrix_has_the_distance_of_each_two() -> None:
    """Of sets of more and of fewer vectors than dimensions, in any order."""
    sets = [moments(samples(count, 20, seed)) for seed, count in enumerate((60, 8, 200, 8), 1)]
    matrix = frechet_distances(sets)
    assert torch.equal(matrix, matrix.T)
    assert not matrix.diagonal().any()
    for row, first in enumerate(sets):
        for column, second in enumerate(sets):
            if row != column:
                assert float(matrix[row, column]) == pytest.approx(frechet_distance(first, second), rel=1e-7)
    assert frechet_distances([]).shape == (0, 0)
    with pytest.raises(ValueError, match="two films or more of each set: 1"):
        frechet_distances([*sets, moments(samples(1, 20, 9))])


def test_torchmetrics_agrees() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Planes(nn.Module):
        """As torchmetrics calls it: bytes of three equal planes."""

        def forward(self, planes: Tensor) -> Tensor:
            return Corners()(planes[:, :1].double() / 127.5 - 1)

    draw = torch.Generator().manual_seed(0)
    real, fake = (torch.randint(0, high, (80, 1, 16, 16), generator=draw, dtype=torch.uint8) for high in (256, 200))
    other = FrechetInceptionDistance(feature=Planes(), input_img_size=(3, 16, 16)).set_dtype(torch.float64)
    other.update(real.expand(-1, 3, -1, -1), real=True)
    other.update(fake.expand(-1, 3, -1, -1), real=False)
    ours = FrechetDistance(Corners(), 12)
    ours.add_real(real.double() / 127.5 - 1)
    ours.add_fake(fake.double() / 127.5 - 1)
    assert ours.compute() == pytest.approx(float(other.compute()), rel=1e-6)


def test_portions_equal_one_go() -> None:
    draw = torch.Generator().manual_seed(0)
    real, fake = torch.rand(50, 1, 8, 8, generator=draw), torch.rand(50, 1, 8, 8, generator=draw) * 0.7
    whole, parts = FrechetDistance(Corners(), 12), FrechetDistance(Corners(), 12)
    whole.add_real(real)
    whole.add_fake(fake)
    for part in (*torch.split(real, 7), real[:0]):
        parts.add_real(part)
    parts.add_fake(real)
    parts.clear_fake()
    for part in torch.split(fake, 1):
        parts.add_fake(part)
    assert parts.compute() == pytest.approx(whole.compute(), rel=1e-10)


def test_moments_far_from_zero_stay_exact() -> None:
    """Sums of squares would have lost every digit of the deviation here."""
    values = torch.randn(400, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    far = Moments(3)
    for part in torch.split(values + 1e8, 50):
        far.add(part)
    torch.testing.assert_close(far.covariance, torch.cov(values.T), rtol=1e-6, atol=1e-7)


def test_what_cannot_be_compared() -> None:
    distance = FrechetDistance(Corners(), 12)
    distance.add_real(torch.rand(4, 1, 8, 8))
    distance.add_fake(torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="two films or more of each set: 1"):
        distance.compute()
    with pytest.raises(ValueError, match="no numbers, among those from film 1 on"):
        distance.add_fake(torch.full((2, 1, 8, 8), torch.nan))
    with pytest.raises(ValueError, match=r"features must be \[n, 13\]: \(2, 12\)"):
        FrechetDistance(Corners(), 13).add_real(torch.rand(2, 1, 8, 8))


# --- the weights of Inception -------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch.hub keeps what it downloaded, of this test alone."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / INCEPTION_FILE
    state = random_weights(InceptionV3().published_shapes(), 0)
    torch.save({name: value.abs() + 0.5 if name.endswith("running_var") else value for name, value in state.items()}, path)
    return path


def test_fid_names_its_weights(weights: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    real, fake = torch.rand(3, 1, 64, 64, generator=draw) * 2 - 1, torch.zeros(2, 1, 64, 64)
    figures = fid(torch.split(real, 2), [fake], weights=str(weights.parent))
    assert list(figures) == ["fid", "fid_films", "fid_weights"]
    assert figures["fid_films"] == 2
    assert figures["fid_weights"] == f"sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}"
    network = Fid(str(weights))
    features = network.features(torch.cat([real, fake[:1]])).double()
    from_gray = (features[:3].mean(0) - features[3]).square().sum() + features[:3].var(0).sum()  # one point has no spread
    assert figures["fid"] == pytest.approx(float(from_gray), rel=1e-4)


def test_weights_are_found_by_file_by_folder_or_in_the_hub(weights: Path, hub: Path) -> None:
    assert find_inception(str(weights)) == weights
    assert find_inception(str(weights.parent)) == weights
    (hub / INCEPTION_FILE.replace(".pth", ".safetensors")).touch()
    assert find_inception(None) == hub / INCEPTION_FILE.replace(".pth", ".safetensors")


def test_missing_weights_are_one_line_that_helps(tmp_path: Path, hub: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        fid([], [], weights=str(tmp_path))
    text = str(caught.value)
    assert text.endswith(f": {INCEPTION_FILE}")
    assert "\n" not in text
    for part in (str(tmp_path), str(hub), "--weights"):
        assert part in text
    with pytest.raises(ConfigError, match=f"file or folder with --set inception=FILE: {INCEPTION_FILE}"):
        find_inception(str(tmp_path), flag="--set inception=FILE")


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / INCEPTION_FILE
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ConfigError, match=f"damaged, or holds more than plain tensors.*: {path}"):
        Fid(str(path))
    shapes = InceptionV3().published_shapes()
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    torch.save({**state, "Mixed_7c.branch1x1.conv.weight": torch.zeros(320, 1280, 1, 1)}, path)
    with pytest.raises(ConfigError, match=rf"no tensor Mixed_7c\.branch1x1\.conv\.weight of shape 320x2048x1x1: {path}"):
        Fid(str(path))
