"""Whether the Ray of this container is well: exit 0 when its agent says so, or when no Ray runs here; a container's health check."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

AGENT = "http://127.0.0.1:52365/api/healthz"  # asks for no token, and tells nothing but this
RAY = ("gcs_server", "raylet")
SECONDS = 5.0


def ray_processes(proc: Path = Path("/proc")) -> list[str]:
    """The names of Ray's own processes that this container runs."""
    found = []
    for comm in proc.glob("[0-9]*/comm"):
        try:
            name = comm.read_text().strip()
        except OSError:  # it has ended meanwhile
            continue
        if name in RAY:
            found.append(name)
    return sorted(found)


def agent_answer(url: str = AGENT) -> tuple[bool, str]:
    """Whether the agent finds its node well, and what it says; it answers with an error where it does not."""
    try:
        with urlopen(url, timeout=SECONDS) as answer:
            return True, str(answer.read(1000).decode(errors="replace")).strip()
    except (URLError, OSError) as error:
        return False, f"Ray's agent does not find its node well: {getattr(error, 'reason', error)}"


def main() -> int:
    """0 when this container does what it is for: a job without Ray, or a node that is well."""
    is_well, said = agent_answer() if ray_processes() else (True, "no Ray runs here")
    print(said)
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
