"""The tasks that the loop trains, by name: where their settings and their builders are, and what they are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from importlib import import_module
from typing import Any, Literal, cast, get_args, get_type_hints

from engine.errors import ConfigError
from engine.networks.settings import read_settings, typed

Need = Literal["no", "optional", "required"]


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """`presets`: the module with `PRESETS`; `build`: module and function. Whether a codec, a discriminator and films are taken.

    `codec_folder`: the builder is told where the codec lies as well, for what lies beside it.
    """

    presets: str
    build: str
    films: bool
    codec: Need = "no"
    discriminator: Need = "no"
    codec_folder: bool = False


TASKS: dict[str, TaskEntry] = {
    "pggan": TaskEntry(presets="trainers.presets.pggan", build="trainers.tasks.pggan:build_pggan", films=True),
    "stylegan": TaskEntry(presets="trainers.presets.stylegan", build="trainers.tasks.stylegan:build_stylegan", films=True),
    "densenet": TaskEntry(
        presets="trainers.presets.densenet",
        build="trainers.tasks.densenet:build_densenet",
        films=True,
        codec="optional",
        discriminator="optional",
    ),
    "retinanet": TaskEntry(
        presets="trainers.presets.retinanet", build="trainers.tasks.retinanet:build_retinanet", films=True, codec="optional"
    ),
    "encoder-bootstrap": TaskEntry(
        presets="trainers.presets.encoder",
        build="trainers.tasks.encoder_bootstrap:build_encoder_bootstrap",
        films=False,
        codec="required",
        discriminator="optional",
    ),
    "encoder-finetune": TaskEntry(
        presets="trainers.presets.encoder", build="trainers.tasks.encoder_finetune:build_encoder_finetune", films=True, codec="required"
    ),
    "codec-finetune": TaskEntry(
        presets="trainers.presets.codec",
        build="trainers.tasks.codec_finetune:build_codec_finetune",
        films=True,
        codec="optional",
        discriminator="optional",
    ),
    "crg": TaskEntry(presets="trainers.presets.crg", build="trainers.tasks.crg:build_crg", films=True, codec="required", codec_folder=True),
    "dgm": TaskEntry(presets="trainers.presets.dgm", build="trainers.tasks.dgm:build_dgm", films=True),
    "dcgan": TaskEntry(presets="trainers.presets.dcgan", build="trainers.tasks.dcgan:build_dcgan", films=True),
    "lsgan": TaskEntry(presets="trainers.presets.lsgan", build="trainers.tasks.dcgan:build_lsgan", films=True),
    "vae": TaskEntry(presets="trainers.presets.vae", build="trainers.tasks.vae:build_vae", films=True),
    "gmvae": TaskEntry(presets="trainers.presets.gmvae", build="trainers.tasks.gmvae:build_gmvae", films=True),
}


def presets_of(task: str) -> Mapping[str, Callable[[], Any]]:
    """The presets of a task by name; a module that serves several tasks has a table for each."""
    module = import_module(TASKS[task].presets)
    table = getattr(module, "PRESETS")  # noqa: B009  # of any module
    return cast("Mapping[str, Callable[[], Any]]", table.get(task, table))


def settings_of(task: str, preset: str, changes: Mapping[str, Any]) -> Any:
    """The task's settings: those of the preset with `changes`. Raises ConfigError for a preset or setting that does not exist."""
    presets = presets_of(task)
    if preset not in presets:
        raise ConfigError(f"presets of {task} are {', '.join(presets)}: {preset}")
    return changed(presets[preset](), changes)


def changed(cfg: Any, changes: Mapping[str, Any]) -> Any:
    """Settings with some replaced, all at once; `a.b` names the setting b of the record a.

    Raises one line for an unknown setting, for another type, and for settings that do not go together.
    """
    hints = get_type_hints(type(cfg))
    values: dict[str, Any] = {}
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        if first not in hints:
            raise ConfigError(f"settings are {', '.join(hints)}; there is no such one: {name}")
        record = values.get(first, getattr(cfg, first))
        values[first] = changed(record, {rest: value}) if rest else _value(hints[first], value, name)
    return replace(cfg, **values)


def _value(kind: Any, value: Any, name: str) -> Any:
    """A setting from JSON; a tuple of records is a list of objects."""
    item = get_args(kind)[0] if get_args(kind) else None
    if not is_dataclass(item) or not isinstance(value, list):
        return typed(kind, value, name)
    return tuple(read_settings(cast("type[Any]", item), part, f"{name}[{place}]") for place, part in enumerate(value))


def builder_of(task: str) -> Callable[..., Any]:
    """The function that builds the task."""
    module, _, function = TASKS[task].build.partition(":")
    return cast("Callable[..., Any]", getattr(import_module(module), function))
