"""Scripts on several ranks, started by torchrun; ``LOSSBUF_RANKS=4 pytest ...`` takes four instead of two."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RANKS = int(os.environ.get("LOSSBUF_RANKS", "2"))


def torchrun(script: Path, *arguments: object, ranks: int = RANKS, restarts: int = 0, fails: bool = False) -> str:
    """Run a script with this lossbuf on all ranks until it ends, and give what it printed."""
    # Ranks that torchrun restarts would read the addresses of the dead ones from a store that it shares with them.
    own_store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {"PYTHONPATH": paths, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", **own_store}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks]
    command += ["--max-restarts", restarts, "--monitor-interval", "0.1", script, *arguments]
    run = subprocess.Popen(
        [str(word) for word in command],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        told = run.communicate(timeout=150 * ranks)[0]
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
    assert (run.returncode != 0) == fails, told
    return told
