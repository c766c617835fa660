"""Settings of how films reach a trainer: which of them are held out, and how those of the training are varied."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import check_at_least
from engine.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Which films train, which are held out, which are left out. Patients are never divided.

    `validation`: share of the patients (not of the films) that is held out. `patient_column`: the manifest's column that names the
    patient, "" for the first of patient_id, patient, PatientID, "Patient ID" that is there. `exclude`: a file of films that must not be
    seen, "" for none. `seed` is not that of the run, so that the trainings of one codec, stage after stage, hold out the same patients.
    `stratify`: by iterative stratification, so that both sides have their share of every label; a new film may then move patients.
    """

    validation: float = 0.1
    patient_column: str = ""
    exclude: str = ""
    seed: int = 0
    stratify: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise ConfigError(f"validation must be 0 or more and less than 1: {self.validation}")
        check_at_least("split.seed", self.seed, 0)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How far a film is varied each time it is seen; 0 switches a kind off. Values are drawn evenly between the limits.

    `flip`: probability of a mirror image, in which a heart lies on the right. `rotation`: up to so many degrees either way. `scale`:
    enlarged or reduced by a factor of up to 1 + scale. `shift`: up to this share of the side, along either axis. `gamma`: the exponent of
    gray in [0, 1] is 1 + gamma at most, the inverse at least. `gain`: contrast times 1 +- gain. `offset`: gray in [0, 1] +- offset.
    """

    flip: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    gamma: float = 0.0
    gain: float = 0.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        for name, most in _AUGMENT_MOST.items():
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"augment.{name} must be 0 to {most:g}: {getattr(self, name)}")

    @property
    def is_identity(self) -> bool:
        """Whether films stay as they are."""
        return self == AugmentConfig()


_AUGMENT_MOST = {"flip": 1, "rotation": 180, "scale": 1, "shift": 0.5, "gamma": 4, "gain": 1, "offset": 1}


def augment_preset(name: str) -> AugmentConfig:
    """ "none", "light" for films in small data sets, "flip": as light, with mirror images, "mirror" for mirror images alone, which boxes
    can follow, or "segal2021" for classifiers.

    Raises ConfigError for any other name.
    """
    if name not in _AUGMENT:
        raise ConfigError(f"augment must be one of {', '.join(_AUGMENT)}: {name}")
    return _AUGMENT[name]


_LIGHT = {"rotation": 4.0, "scale": 0.06, "shift": 0.04, "gamma": 0.1, "gain": 0.1, "offset": 0.04}
# Segal et al. 2021, 3.3: 10 degrees, mirrored half the time, brightness and contrast by 0.1. A contrast about a mean of half gray moves
# gray by 0.05; saturation and hue do nothing to gray films.
_SEGAL = AugmentConfig(rotation=10.0, flip=0.5, gain=0.1, offset=0.05)
_AUGMENT = {
    "none": AugmentConfig(),
    "light": AugmentConfig(**_LIGHT),
    "flip": AugmentConfig(**_LIGHT, flip=0.3),
    "mirror": AugmentConfig(flip=0.5),
    "segal2021": _SEGAL,
}
