"""Choose the run's name and its first process before Hydra starts, equally in all processes.

Launchers describe their processes in environment variables: Lightning's own, torchrun's, SLURM's.
"""

from __future__ import annotations

import os
from datetime import datetime


def set_run_id() -> None:
    """Set ``$SEMINMF_RUN_ID``, which names directories, to one value in all processes on all machines.

    A value that is set already stays: child processes inherit it.  Tasks of ``srun`` use the number of their
    job, which a requeue keeps; workers of torchrun use the first proposal among them, which a restart keeps.
    """
    if "SEMINMF_RUN_ID" in os.environ:
        return
    now = datetime.now()
    name = now.strftime("%Y-%m-%d/%H-%M-%S-") + f"{now.microsecond // 1000:03d}"
    if in_srun():
        name = f"slurm-{os.environ['SLURM_JOB_ID']}"
    elif "TORCHELASTIC_RUN_ID" in os.environ:
        from seminmf_lightning.training.distributed import first_proposal  # torch: only where it is needed

        name = first_proposal("seminmf_run_id", name)
    os.environ["SEMINMF_RUN_ID"] = name


def in_srun() -> bool:
    """Whether this process is a task of ``srun``, not a shell or batch script inside an allocation."""
    return "SLURM_STEP_ID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def is_first_process() -> bool:
    """Whether this is the process of rank 0, as far as its launcher says."""
    names = ("RANK",) if "RANK" in os.environ else ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return not any(int(os.environ.get(name, 0)) for name in names)


def rank_and_world() -> tuple[int, int]:
    """Return the rank and the number of processes, under torchrun or srun; (0, 1) without either."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"]), int(os.environ.get("WORLD_SIZE", 1))
    if in_srun():
        return int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    return 0, 1


def local_rank() -> int:
    """Return the rank of this process on this machine."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))
