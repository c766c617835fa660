"""Quality figures equal those of scikit-image, of torchmetrics and of the papers' definitions, and resizing equals Pillow's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import convolve1d
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure, structural_similarity_index_measure

from engine import metrics
from engine.source.phantom import render_phantom

Array = np.ndarray


def film_pair(height: int, width: int, *, noise: float = 0.05) -> tuple[Tensor, Tensor]:
    """Three smooth films; the first two of the second batch are noisy copies, the third is its negative."""
    draw = torch.Generator().manual_seed(height * width)
    coarse = torch.rand(3, 1, 9, 9, generator=draw)
    x = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    y = (x + noise * torch.randn(x.shape, generator=draw)).clamp(0, 1)
    y[2] = 1 - x[2]
    return x, y


def exact(image: Tensor) -> Array:
    return image[0].double().numpy()


@pytest.mark.parametrize(("height", "width"), [(11, 11), (12, 40), (97, 64), (300, 700)])
@pytest.mark.parametrize("noise", [0.3, 0.02, 1e-4])
def test_ssim_equals_scikit_image(height: int, width: int, noise: float) -> None:
    x, y = film_pair(height, width, noise=noise)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = [structural_similarity(exact(a), exact(b), **settings) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(metrics.ssim(x, y).numpy(), expected, rtol=0, atol=1e-6)


def test_ssim_of_nearly_white_films_is_not_lost_to_rounding() -> None:
    x = torch.ones(1, 1, 64, 64)
    y = x - 1e-3 * torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = structural_similarity(
        exact(x[0]), exact(y[0]), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
    )
    assert metrics.ssim(x, y).item() == pytest.approx(expected, abs=1e-6)


def reference_ms_ssim(x: Array, y: Array) -> float:
    """Straight from the paper, in float64, with scipy's convolution."""
    window = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(image: Array) -> Array:
        return convolve1d(convolve1d(image, window, axis=0), window, axis=1)[5:-5, 5:-5]

    result = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if scale:
            x, y = (
                image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
                .reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2)
                .mean((1, 3))
                for image in (x, y)
            )
        mean_x, mean_y = blur(x), blur(y)
        var_x, var_y, cov = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
        contrast = (2 * cov + 9e-4) / (var_x + var_y + 9e-4)
        luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
        result *= max((contrast * luminance if scale == 4 else contrast).mean(), 0) ** weight
    return float(result)


@pytest.mark.parametrize(("height", "width"), [(176, 176), (201, 333)])
def test_ms_ssim_equals_its_definition(height: int, width: int) -> None:
    x, y = film_pair(height, width)
    expected = [reference_ms_ssim(exact(a), exact(b)) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(metrics.ms_ssim(x, y).numpy(), expected, rtol=0, atol=2e-6)
    assert expected[0] > 0.5
    assert expected[2] == 0


@pytest.fixture(scope="module")
def radiographs() -> tuple[Tensor, Tensor]:
    """Two phantoms, each beside itself blurred, darkened, in noise and black, [8, 1, 192, 192] twice."""
    draw = torch.Generator().manual_seed(0)
    films = [torch.from_numpy(render_phantom(8, index, size=256).pixels.astype(np.float32) / 255) for index in range(2)]
    x = torch.stack([film[32:224, 32:224] for film in films])[:, None].repeat(4, 1, 1, 1)
    blurred = torch.nn.functional.avg_pool2d(x[:2], 5, stride=1, padding=2)
    noisy = (x[4:6] + 0.1 * torch.randn(x[4:6].shape, generator=draw)).clamp(0, 1)
    return x, torch.cat([blurred, 0.7 * x[2:4], noisy, torch.zeros_like(x[6:8])])


def test_ssim_of_radiographs_equals_scikit_image_and_torchmetrics(radiographs: tuple[Tensor, Tensor]) -> None:
    x, y = radiographs
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    found = metrics.ssim(x, y)
    expected = [structural_similarity(exact(a), exact(b), **settings) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(found, torchmetrics_ssim(x, y), rtol=0, atol=1e-4)
    assert found.min() < 0.1
    assert found.max() > 0.8


def test_ms_ssim_of_radiographs_equals_torchmetrics(radiographs: tuple[Tensor, Tensor]) -> None:
    x, y = radiographs
    found = metrics.ms_ssim(x, y)
    torch.testing.assert_close(found, torchmetrics_ms_ssim(x, y), rtol=0, atol=1e-4)
    assert found.min() < 0.5
    assert found.max() > 0.9


@pytest.mark.parametrize(("height", "width"), [(176, 176), (201, 333)])
def test_ssim_and_ms_ssim_equal_torchmetrics(height: int, width: int) -> None:
    x, y = film_pair(height, width)
    torch.testing.assert_close(metrics.ssim(x, y), torchmetrics_ssim(x, y), rtol=0, atol=1e-4)
    torch.testing.assert_close(metrics.ms_ssim(x, y), torchmetrics_ms_ssim(x, y), rtol=0, atol=1e-4)


def test_ms_ssim_of_torchmetrics_differs_by_its_mirrored_border_alone() -> None:
    """Its own product takes the last scale's mean over places where the window leaves the image: under 0.005 at 512x512."""
    x, y = film_pair(512, 512)
    whole = multiscale_structural_similarity_index_measure(x, y, reduction="none", data_range=1.0, normalize="relu")
    torch.testing.assert_close(whole, torchmetrics_ms_ssim(x, y, crop=False), rtol=0, atol=1e-6)
    torch.testing.assert_close(whole, metrics.ms_ssim(x, y), rtol=0, atol=5e-3)


def torchmetrics_ssim(x: Tensor, y: Tensor, *, crop: bool = True) -> Tensor:
    """The mean of its map where the window lies inside the image, as Wang et al. take it; its own figure takes the mirrored border too."""
    _, full = structural_similarity_index_measure(x, y, reduction="none", data_range=1.0, return_full_image=True)
    return (full[..., 5:-5, 5:-5] if crop else full).mean(dim=(1, 2, 3))


def torchmetrics_ms_ssim(x: Tensor, y: Tensor, *, crop: bool = True) -> Tensor:
    """Its contrast at four scales and its SSIM at the fifth, each with the weight of the paper."""
    result = torch.ones(len(x))
    for weight in (0.0448, 0.2856, 0.3001, 0.2363):
        _, contrast = structural_similarity_index_measure(x, y, reduction="none", data_range=1.0, return_contrast_sensitivity=True)
        result = result * contrast.relu() ** weight
        x, y = (torch.nn.functional.avg_pool2d(image, 2) for image in (x, y))
    return result * torchmetrics_ssim(x, y, crop=crop).relu() ** 0.1333


def test_psnr_and_mse_equal_scikit_image() -> None:
    x, y = film_pair(50, 70)
    expected = [peak_signal_noise_ratio(exact(a), exact(b), data_range=1.0) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(metrics.psnr(x, y).numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(
        metrics.mse(x, y).numpy(), [((exact(a) - exact(b)) ** 2).mean() for a, b in zip(x, y, strict=True)], rtol=1e-5
    )


def test_equal_films_read_the_cap_and_stay_finite() -> None:
    x, _ = film_pair(20, 20)
    assert metrics.psnr(x, x).tolist() == pytest.approx([metrics.PSNR_CAP] * 3)
    assert metrics.ssim(x, x).tolist() == pytest.approx([1.0] * 3)
    assert metrics.mse(x, x).tolist() == [0.0] * 3


Metric = Callable[[Tensor, Tensor], Tensor]
ALL = [metrics.mse, metrics.psnr, metrics.ssim, metrics.ms_ssim]


@pytest.mark.parametrize("metric", ALL)
def test_images_do_not_mix_and_a_nan_stays_with_its_image(metric: Metric) -> None:
    x, y = film_pair(180, 176)
    x[1, 0, 90, 90] = torch.nan
    together = metric(x, y)
    assert (together.shape, together.dtype) == ((3,), torch.float32)
    assert together.isnan().tolist() == [False, True, False]
    for row in (0, 2):
        torch.testing.assert_close(metric(x[row : row + 1], y[row : row + 1])[0], together[row])


@pytest.mark.parametrize("metric", ALL)
def test_half_precision_films_are_measured_in_float32(metric: Metric) -> None:
    x, y = (film.bfloat16() for film in film_pair(176, 176))
    assert metric(x, y).dtype == torch.float32
    torch.testing.assert_close(metric(x, y), metric(x.float(), y.float()))


@pytest.mark.parametrize("metric", ALL)
def test_no_images_have_no_values(metric: Metric) -> None:
    empty = torch.zeros(0, 1, 176, 176)
    assert (metric(empty, empty).shape, metric(empty, empty).dtype) == ((0,), torch.float32)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("shape", [(2, 1, 180, 181), (3, 1, 180, 180), (2, 3, 180, 180), (2, 180, 180)])
def test_shapes_that_do_not_fit_are_refused(metric: Metric, shape: tuple[int, ...]) -> None:
    other = shape if len(shape) == 3 or shape[1] != 1 else (2, 1, 180, 180)
    with pytest.raises(ValueError, match="one shape"):
        metric(torch.zeros(shape), torch.zeros(other))


def test_films_smaller_than_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 11 pixels"):
        metrics.ssim(torch.zeros(1, 1, 10, 30), torch.zeros(1, 1, 10, 30))
    small = torch.zeros(1, 1, metrics.MS_SSIM_LEAST_SIZE - 1, 200)
    with pytest.raises(ValueError, match="at least 176 pixels"):
        metrics.ms_ssim(small, small)


def test_to_unit_clamps() -> None:
    assert metrics.to_unit(torch.tensor([-1.5, -1.0, 0.0, 1.0, 2.0])).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


SIZES = [((16, 16), 64), ((64, 64), 16), ((50, 50), 51), ((37, 90), 64), ((1, 1), 5), ((7, 7), 1), ((100, 100), 333), ((333, 333), 100)]


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_resize_equals_pillow(source: tuple[int, int], size: int) -> None:
    x = torch.rand(2, 1, *source, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = [np.asarray(Image.fromarray(film[0].numpy()).resize((size, size), Image.Resampling.LANCZOS)) for film in x]
    np.testing.assert_allclose(metrics.resize_film(x, size)[:, 0].numpy(), expected, rtol=0, atol=2e-6)


def test_resize_to_its_own_size_is_the_film_itself() -> None:
    x = torch.rand(2, 1, 8, 8)
    assert metrics.resize_film(x, 8) is x


def test_resize_is_differentiable_even_after_inference_mode_used_its_weights() -> None:
    x = torch.rand(1, 1, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        metrics.resize_film(x, 9)
    assert torch.autograd.gradcheck(lambda film: metrics.resize_film(film, 9), x.requires_grad_(True))


def test_resize_keeps_its_digits_under_autocast() -> None:
    x = torch.rand(1, 1, 20, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = metrics.resize_film(x, 30)
    assert torch.equal(inside, metrics.resize_film(x, 30))


@pytest.mark.parametrize(("shape", "size"), [((1, 8, 8), 4), ((1, 1, 8, 8), 0)])
def test_resize_refuses_what_is_not_a_film(shape: tuple[int, ...], size: int) -> None:
    with pytest.raises(ValueError, match="resize_film takes"):
        metrics.resize_film(torch.zeros(shape), size)


@pytest.mark.gpu
@pytest.mark.parametrize("metric", ALL)
def test_a_gpu_gives_the_same_values(metric: Metric) -> None:
    x, y = film_pair(300, 200)
    torch.testing.assert_close(metric(x.cuda(), y.cuda()).cpu(), metric(x, y), rtol=1e-5, atol=1e-5)
