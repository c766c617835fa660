"""Terms of the evidence lower bound against plain loops and a numerical integral; the mixture, and its figures."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from trainers.losses.vae import kl_by_sample, kl_to_standard, label_loss, log_normal, reconstruction, sample
from trainers.nets.gaussian_mixture import GaussianMixture
from trainers.nets.recent_codes import RecentCodes
from trainers.tasks.gmvae_figures import cluster_accuracy, cluster_figures, label_figures


def mixture_of(means, variances):
    net = GaussianMixture(*np.shape(means))
    net.means.data.copy_(torch.tensor(means))
    net.log_variances.data.copy_(torch.tensor(variances).log())
    return net


def test_kl_to_standard_is_the_integral_of_its_definition():
    mean, spread = 0.7, 0.4
    z = np.linspace(-8, 8, 160_001)
    q = np.exp(-((z - mean) ** 2) / (2 * spread**2)) / (spread * math.sqrt(2 * math.pi))
    p = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    integral = np.trapezoid(q * (np.log(np.maximum(q, 1e-300)) - np.log(p)), z)
    one = torch.tensor([[mean]]), torch.tensor([[2 * math.log(spread)]])
    assert kl_to_standard(*one).item() == pytest.approx(integral, abs=1e-5)
    two = [value.repeat(3, 2) for value in one]
    torch.testing.assert_close(kl_to_standard(*two), torch.full((3,), 2 * integral, dtype=torch.float32))


def test_kl_to_standard_is_the_papers_formula():
    rng = np.random.default_rng(0)
    mean, spread = rng.normal(size=(3, 4)), rng.uniform(0.2, 2, (3, 4))
    expected = [-0.5 * sum(1 + math.log(s**2) - m**2 - s**2 for m, s in zip(*row, strict=True)) for row in zip(mean, spread, strict=True)]
    found = kl_to_standard(torch.tensor(mean), torch.tensor(np.log(spread**2)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_reconstruction_is_in_units_of_0_to_1():
    films, made = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    made[1] = 1.0  # half of the range
    made[1, 0, 0, 0] = -1.0
    assert reconstruction(made, films, over="sum").tolist() == [0, 16 * 0.25]
    assert reconstruction(made, films, over="mean").tolist() == [0, 0.25]


def test_samples_have_the_mean_and_variance_asked_for():
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((20_000, 2))).float()
    z = sample(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, math.log(0.25)]]), noise)
    assert z.mean(dim=0).tolist() == pytest.approx([1, -2], abs=0.03)
    assert z.std(dim=0).tolist() == pytest.approx([1, 0.5], abs=0.02)


def test_log_normal_is_torchs():
    torch.manual_seed(0)
    z, mean, log_variance = torch.randn(3, 5), torch.randn(5), torch.randn(5)
    torch.testing.assert_close(log_normal(z, mean, log_variance), Normal(mean, (log_variance / 2).exp()).log_prob(z).sum(dim=1))


def test_mixture_density_is_the_mean_of_its_components():
    rng = np.random.default_rng(1)
    means, variances, z = rng.normal(size=(3, 2)), rng.uniform(0.3, 2, (3, 2)), rng.normal(size=(6, 2))
    densities = [
        [np.prod([math.exp(-((x - m) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v) for x, m, v in zip(*row, strict=True)]) for row in each]
        for each in [[(point, means[k], variances[k]) for k in range(3)] for point in z]
    ]
    net, rows = mixture_of(means, variances), torch.tensor(z)
    np.testing.assert_allclose(net.log_density(rows).exp().detach(), np.mean(densities, axis=1), rtol=1e-5)
    np.testing.assert_allclose(
        net.responsibilities(rows).detach(), np.array(densities) / np.sum(densities, axis=1, keepdims=True), rtol=1e-4, atol=1e-7
    )


def test_kl_by_sample_is_the_kl_in_the_mean():
    """With one standard component the mixture's KL has the closed form."""
    noise = torch.from_numpy(np.random.default_rng(2).standard_normal((40_000, 2))).float()
    mean, log_variance = torch.tensor([[0.5, -1.0]]), torch.tensor([[-0.6, 0.4]])
    net = mixture_of([[0.0, 0.0]], [[1.0, 1.0]])
    estimates = kl_by_sample(sample(mean, log_variance, noise), mean, log_variance, net.log_density)
    assert estimates.mean().item() == pytest.approx(kl_to_standard(mean, log_variance).item(), abs=0.02)


def test_gradient_moves_components_towards_codes():
    net = mixture_of([[0.0, 0.0], [4.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]])
    z = torch.tensor([[1.0, 0.0], [4.0, 5.0]])
    kl_by_sample(z, z, torch.zeros(2, 2), net.log_density).mean().backward()
    assert net.means.grad[0, 0] < 0
    assert net.means.grad[1, 1] < 0
    assert net.means.grad[0, 1].abs() < 1e-3


def test_label_loss_is_the_cross_entropy():
    logits, marks = torch.tensor([[0.3, -2.0], [1.5, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    chances = [[1 / (1 + math.exp(-value)) for value in row] for row in logits.tolist()]
    expected = [-sum(math.log(p if y else 1 - p) for p, y in zip(*row, strict=True)) for row in zip(chances, marks.tolist(), strict=True)]
    assert label_loss(logits, marks).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_mixture_finds_the_clusters_of_codes():
    rng = np.random.default_rng(3)
    centres, spreads = np.array([[0.0, 0, 0], [6, 0, 0], [0, 6, 6]]), np.array([0.2, 0.5, 1.0])
    which = rng.integers(0, 3, 600)
    codes = torch.tensor(centres[which] + spreads[which][:, None] * rng.standard_normal((600, 3))).float()
    net, again = GaussianMixture(3, 3), GaussianMixture(3, 3)
    net.fit(codes, seed=1)
    again.fit(codes, seed=1)
    assert torch.equal(net.means, again.means)
    order = torch.cdist(torch.tensor(centres).float(), net.means).argmin(dim=1)
    assert sorted(order.tolist()) == [0, 1, 2]
    np.testing.assert_allclose(net.means.detach()[order], centres, atol=0.15)
    np.testing.assert_allclose((net.log_variances.detach()[order] / 2).exp(), spreads[:, None].repeat(3, 1), rtol=0.15)
    assert (net.responsibilities(codes).argmax(dim=1) == order[which]).float().mean() > 0.99


def test_a_mixture_can_be_put_where_all_codes_are_one():
    net = GaussianMixture(3, 2)
    net.fit(torch.ones(10, 2), seed=0)
    assert net.means.tolist() == [[1, 1]] * 3
    assert net.log_variances.isfinite().all()


def test_draws_are_of_a_component():
    net = mixture_of([[0.0, 0.0], [3.0, -3.0]], [[1.0, 1.0], [0.25, 4.0]])
    assert net.draw(1, torch.tensor([[1.0, 1.0], [0.0, 0.0]])).tolist() == [[3.5, -1.0], [3.0, -3.0]]


def test_the_latest_codes_are_kept():
    ring = RecentCodes(5, 1)
    assert ring.codes().shape == (0, 1)
    ring.add(torch.arange(3.0)[:, None])
    assert ring.codes().flatten().tolist() == [0, 1, 2]
    ring.add(torch.arange(3.0, 7.0)[:, None])
    assert sorted(ring.codes().flatten().tolist()) == [2, 3, 4, 5, 6]
    ring.add(torch.arange(7.0, 20.0)[:, None])
    assert sorted(ring.codes().flatten().tolist()) == [15, 16, 17, 18, 19]


def test_clusters_are_judged_by_their_commonest_label():
    clusters, marks = torch.tensor([0, 0, 0, 2, 2, 5]), torch.tensor([1.0, 1, 0, 0, 0, 1])
    assert cluster_accuracy(clusters, marks) == pytest.approx(5 / 6)
    rng = np.random.default_rng(4)
    marks = torch.tensor(rng.integers(0, 2, 200)).float()
    good = cluster_figures(marks.long() * 3, marks, seed=0)
    assert good["cluster_accuracy"] == 1
    assert good["clusters_used"] == 2
    assert 0.5 <= good["cluster_accuracy_by_chance"] < 0.6
    alone = cluster_figures(torch.arange(200), marks, seed=0)
    assert alone["cluster_accuracy"] == alone["cluster_accuracy_by_chance"] == 1


def test_labels_are_judged_one_by_one():
    chances, marks = torch.tensor([[0.9, 0.2], [0.4, 0.1]]), torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert label_figures(chances, marks, ["a: b, c", "d"]) == {"accuracy_a": 0.5, "accuracy_d": 0.5}
    assert label_figures(chances[:, :0], marks, []) == {}
