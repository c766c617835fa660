"""deploy/slurm.sh: what a linter says, and what it asks of Slurm and Ray, with programs that only write down how they were called."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy/slurm.sh"
SHELLCHECK = Path(sys.executable).with_name("shellcheck")

SRUN = 'echo "srun $* | $RAY_AUTH_MODE $(stat --format=%a "$RAY_AUTH_TOKEN_PATH") $(wc -c <"$RAY_AUTH_TOKEN_PATH")" >>"$CALLS"\n'
SCONTROL = """if [[ $1 == show ]]; then printf '%s\\n' $3; else echo "scontrol $*" >>"$CALLS"; fi\n"""
# The driver answers once both steps have been heard; where PREEMPT is set, the script is told to stop while the driver runs.
PYTHON = """case $1 in
-c) exec "$REAL_PYTHON" "$@" ;;
deploy/wait_for_nodes.py)
    until [[ -f $CALLS && $(grep -c ^srun "$CALLS") -eq 2 ]]; do :; done
    echo "wait $*" >>"$CALLS" ;;
*)
    echo "driver $*" >>"$CALLS"
    [[ -z ${PREEMPT:-} ]] || { kill -TERM "$PPID"; exec tail -f /dev/null; }
    exit "${DRIVER:-0}" ;;
esac
"""


def run(tmp_path: Path, **more: str) -> tuple[int, list[str], list[Path]]:
    """Exit code, what was called in order, and what the script left in the home."""
    checkout, home = tmp_path / "checkout", tmp_path / "home"
    (checkout / ".venv/bin").mkdir(parents=True)
    home.mkdir()
    for name, body in {"srun": SRUN, "scontrol": SCONTROL, "python": PYTHON}.items():
        program = checkout / ".venv/bin" / name
        program.write_text("#!/usr/bin/env bash\n" + body)
        program.chmod(0o755)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "CALLS": str(tmp_path / "calls"), "REAL_PYTHON": sys.executable}
    env |= {"SLURM_SUBMIT_DIR": str(checkout), "SLURM_JOB_ID": "123456", "SLURM_CPUS_PER_TASK": "16", "SLURM_GPUS_ON_NODE": "4"}
    env |= {"SLURM_JOB_NODELIST": "localhost node-2 node-3"}  # as our `scontrol` takes it
    words = [str(SCRIPT), "/data/films of 2026", "--workers", "2"]
    done = subprocess.run(words, env=env | more, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, (tmp_path / "calls").read_text().splitlines(), list(home.iterdir())


def test_shells_and_linters_take_it() -> None:
    assert subprocess.run([str(shutil.which("bash")), "-n", str(SCRIPT)], check=False).returncode == 0
    done = subprocess.run([str(SHELLCHECK), "--severity=style", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_head_workers_and_then_the_job(tmp_path: Path) -> None:
    code, calls, left = run(tmp_path)
    assert code == 0
    head, workers = sorted((line for line in calls if line.startswith("srun")), key=lambda line: "--exclude" in line)
    assert "--nodes=1 --ntasks=1 --nodelist=localhost ray start --head --node-ip-address=127.0.0.1 --port=23456 " in head
    assert "--dashboard-host=127.0.0.1" in head
    assert "--nodes=2 --ntasks=2 --exclude=localhost ray start --address=127.0.0.1:23456 " in workers
    for line in (head, workers):
        assert "--num-cpus 16 --num-gpus 4 --block" in line
        assert line.endswith("| token 600 64")  # who may read the token, and its length
    assert calls[2:] == [
        "wait deploy/wait_for_nodes.py 127.0.0.1:23456 3",
        "driver engine/encode_dataset.py /data/films of 2026 --workers 2 --address 127.0.0.1:23456",
    ]
    assert left == []


def test_the_jobs_own_failure_is_the_scripts(tmp_path: Path) -> None:
    code, calls, left = run(tmp_path, DRIVER="3")
    assert code == 3
    assert not any("requeue" in line for line in calls)
    assert left == []


def test_preempted_it_asks_to_be_queued_again(tmp_path: Path) -> None:
    code, calls, left = run(tmp_path, PREEMPT="yes")
    assert code == 0
    assert calls[-1] == "scontrol requeue 123456"
    assert left == []


@pytest.mark.parametrize("option", ["--requeue", "--open-mode=append", "--signal=B:TERM@120", "--ntasks-per-node=1"])
def test_slurm_is_told(option: str) -> None:
    head, _, _ = SCRIPT.read_text().partition("set -euo pipefail")
    assert re.search(rf"^#SBATCH {re.escape(option)}$", head, flags=re.MULTILINE)
