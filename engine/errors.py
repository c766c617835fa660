"""What a user can get wrong, and what one film can get wrong: two families that never mix."""


class LatentrayError(Exception):
    """A request that cannot be carried out. Its text is one clear line; the command line prints it without a traceback."""

    exit_code = 2


class ConfigError(LatentrayError):
    """A setting has a value that makes no sense."""


class SourceError(LatentrayError):
    """The films cannot be listed: no such folder, an empty one, duplicate ids, a manifest without the needed column."""


class CodecError(LatentrayError):
    """A codec or classifier directory is missing, incomplete, damaged or of an unknown version."""


class BackendError(LatentrayError):
    """A compiled backend cannot be imported, does not build, or fails the parity gate."""


class ClusterError(LatentrayError):
    """The cluster cannot run the job: no room for workers, or a shard that no worker gets through."""


class ArchiveError(LatentrayError):
    """An archive is missing, is not ours, has an unknown version, or cannot be written."""


class FingerprintMismatch(ArchiveError):
    """The archive was made with other settings, another codec or another source, so it cannot be continued."""

    exit_code = 3


class TrainError(LatentrayError):
    """A training run cannot begin, go on or be written: a checkpoint of another task, a full disk, a damaged file."""


class SettingsChanged(TrainError):
    """A training run is resumed with other settings, another codec or other films than it was begun with."""

    exit_code = 3


class TrainingDiverged(TrainError):
    """A loss or a gradient is no longer finite; the last checkpoint is from before."""

    exit_code = 1


class RowError(Exception):
    """One film failed at one stage. Never ends a run: it becomes a row with its stage and reason.

    `reason` is one line that names neither a path nor patient data, so it can be stored in the archive.
    """

    stage = "encode"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ReadError(RowError):
    """The bytes of a film could not be had: it vanished, is unreadable, empty or larger than the limit."""

    stage = "read"


class DecodeError(RowError):
    """The bytes are there, but no film comes out of them."""

    stage = "decode"


class LayerError(RowError):
    """A fidelity layer is damaged, or a film cannot be coded to the error that was asked for."""

    stage = "fidelity"
