"""A script of which a rank is killed on the way: ``torchrun ... doomed.py DOOMS SCRIPT ARGUMENT ...``.

``DOOMS`` is JSON, a place for each start of the script: the rank, where ("step": in the middle of a training step,
"write": within the writing of a checkpoint, "replace": when that is written but not yet in its place) and at what time
from that start on. SIGKILL leaves no time to clean up, as when memory is full or a machine stops.
"""

import json
import os
import runpy
import signal
import sys

import torch

from lossbuf.files import whole as files


def _doom(place: str, count: int) -> None:
    left = count

    def last() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    def die() -> None:
        print("killed by SIGKILL", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    if place == "step":
        step = torch.optim.SGD.step
        torch.optim.SGD.step = lambda *args, **settings: die() if last() else step(*args, **settings)
    elif place == "replace":
        replace = os.replace
        files.os.replace = lambda *args: die() if last() else replace(*args)
    elif place == "write":
        save = torch.save

        def half(content, file):
            save(content, file)
            if last():
                file.truncate(file.tell() // 2)
                file.flush()
                die()

        files.torch.save = half


if __name__ == "__main__":
    dooms, script = json.loads(sys.argv[1]), sys.argv[2]
    sys.argv = sys.argv[2:]
    start = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if start < len(dooms):
        rank, place, count = dooms[start]
        if rank == int(os.environ["RANK"]):
            _doom(place, count)
    print(f"start {start}", flush=True)
    runpy.run_path(script, run_name="__main__")
