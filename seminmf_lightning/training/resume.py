"""What a checkpoint of the module holds beside its parameters, and whether one fits the run that is to go on
from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from seminmf_lightning.io.schema import conform, same_form
from seminmf_lightning.io.untrusted import Refused
from seminmf_lightning.learners import Learner
from seminmf_lightning.training.distributed import all_reduce_, world_size


def state_of_all(learner: Learner) -> dict[str, Any]:
    """The learner's state with the rows that all processes have pending, so that any number of them can go on
    from it."""
    state = learner.state_dict()
    if world_size() > 1:
        pending = type(learner.pending)(**{name: t.clone() for name, t in learner.pending.tensors().items()})
        all_reduce_(pending)
        state["pending"] = pending.tensors()
    return state


def reopen_pass(checkpoint: dict[str, Any]) -> None:
    """Let a pass that ``max_steps`` or ``max_time`` ended go on when the run is resumed: the trainer counts
    it as done."""
    for counts in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
        counts["processed"] = counts["completed"] = counts["ready"] - 1


def features_of(checkpoint: Mapping[str, Any], concepts: int, features: int) -> int:
    """The width d of the dictionary in a checkpoint.

    Args:
        concepts: k that it must have.
        features: d that it must have; 0 where any will do.

    Raises:
        ValueError: it holds no dictionary, or one of another shape.
    """
    file = _name(checkpoint)
    conform(
        file,
        checkpoint,
        {"state_dict": {"dictionary": Tensor, "scale": Tensor, "mean": Tensor}, "batch?": int},
    )
    found = tuple(checkpoint["state_dict"]["dictionary"].shape)
    if len(found) != 2:
        raise Refused(f"{file}: the dictionary has shape {found}; expected (concepts, features)")
    expected = (concepts, features or found[1])
    if found != expected:
        raise ValueError(
            f"{file}: it holds a dictionary of {found[0]} concepts x {found[1]} features, "
            f"but this run has nb_concepts={expected[0]} and data of {expected[1]} features"
        )
    return found[1]


def refuse_unless_like(
    checkpoint: Mapping[str, Any], parameters: Mapping[str, Any], learner: Learner
) -> None:
    """Raise Refused unless keys, types and shapes are those of the module's ``parameters`` and of its
    learner's state."""
    file, state, wanted = _name(checkpoint), checkpoint.get("learner"), learner.state_dict()
    same_form(file, checkpoint["state_dict"], parameters, "state_dict")
    same_form(file, checkpoint.get("effort", ()), (), "effort")
    if state is None:
        return
    if isinstance(state, Mapping) and set(state) != set(wanted):
        raise Refused(
            f"{file}: it was written with other statistics than {learner.recipe.statistics_for(learner.features)}; "
            "resume with the statistics and l1_penalty of the run it comes from"
        )
    same_form(file, state, wanted, "learner")


def _name(checkpoint: Mapping[str, Any]) -> str:
    return str(checkpoint.get("file", "the checkpoint"))
