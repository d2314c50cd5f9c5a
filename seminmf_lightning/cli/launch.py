"""What the processes of a run agree on before Hydra starts: its name, which of them is the first, where
scripts are.

Launchers tell their processes about each other in environment variables: Lightning's own, torchrun's,
SLURM's.
"""

from __future__ import annotations

import os
from datetime import datetime


def set_run_id() -> None:
    """Set ``$SEMINMF_RUN_ID``, from which directories are named, to one value in all processes on all
    machines.

    A value that is there already stays: children inherit it.  Tasks of ``srun`` take the number of their job,
    which a requeue keeps; workers of torchrun what the first of them proposes, which a restart keeps.
    """
    if "SEMINMF_RUN_ID" in os.environ:
        return
    now = datetime.now()
    name = now.strftime("%Y-%m-%d/%H-%M-%S-") + f"{now.microsecond // 1000:03d}"
    if "SLURM_STEP_ID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        name = f"slurm-{os.environ['SLURM_JOB_ID']}"
    elif "TORCHELASTIC_RUN_ID" in os.environ:
        name = _agreed("seminmf_run_id", name)
    os.environ["SEMINMF_RUN_ID"] = name


def _agreed(key: str, proposal: str) -> str:
    """The first proposal for ``key`` to reach the store that torchrun keeps for all its workers.

    Raises:
        RuntimeError: there is no such store.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise RuntimeError(
            "this torchrun keeps no store for its workers: set SEMINMF_RUN_ID to one value on every node"
        )
    from torch.distributed import TCPStore  # scripts that only compare files do without torch

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return store.compare_set(key, "", proposal).decode()


def is_first_process() -> bool:
    """Whether this is the process of rank 0, as far as its launcher says."""
    names = ("RANK",) if "RANK" in os.environ else ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return not any(int(os.environ.get(name, 0)) for name in names)
