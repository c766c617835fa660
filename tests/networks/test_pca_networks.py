"""The PCA networks against least squares in NumPy."""

import numpy as np
import pytest
import torch

from engine.errors import CodecError
from engine.networks.pca import PcaEncoder, PcaGenerator, PcaSettings

SETTINGS = PcaSettings(resolution=8, components=5)


def filled(cls, seed=0):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(64, 5)))[0].T
    net = cls(SETTINGS)
    state = {"mean": rng.normal(size=64) * 0.1, "components": basis, "scale": rng.uniform(0.5, 2, 5)}
    net.load_state_dict({name: torch.from_numpy(value).float() for name, value in state.items()})
    return net, state


def test_codes_are_the_whitened_least_squares_solution():
    encoder, state = filled(PcaEncoder)
    films = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    solution = np.linalg.lstsq(state["components"].T, (films.flatten(1).numpy() - state["mean"]).T, rcond=None)[0].T
    got = encoder(films)
    assert got.shape == (4, 1, 5)
    np.testing.assert_allclose(got[:, 0].numpy(), solution / state["scale"], rtol=1e-4, atol=1e-5)


def test_a_code_survives_the_round_trip():
    encoder, _ = filled(PcaEncoder)
    generator, _ = filled(PcaGenerator)
    codes = torch.randn(3, 1, 5, generator=torch.Generator().manual_seed(2))
    films = generator(codes)
    assert films.shape == (3, 1, 8, 8)
    torch.testing.assert_close(encoder(films), codes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"resolution": 0}, {"components": 0}, {"resolution": 4, "components": 17}])
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(CodecError, match="pca"):
        PcaSettings(**wrong)
