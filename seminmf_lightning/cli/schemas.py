"""Types of the root keys, checked before anything is built.  The YAML files hold the values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional


@dataclass
class TrainConfig:
    """Root of ``configs/train.yaml``.  Groups are checked by the constructors they go to."""

    nb_concepts: int
    l1_penalty: float
    target_l0: Optional[float]  # noqa: UP045  (OmegaConf does not know `float | None` in every version we accept)
    tol: float
    seed: int
    normalize: str
    statistics: str
    ckpt_path: Optional[str]  # noqa: UP045
    optimized_metric: Any
    run_dir: str
    solver: Any
    init: Any
    encoder: Any
    data: Any
    trainer: Any
    logger: Any
    callbacks: Any


@dataclass
class EncodeConfig:
    """Root of ``configs/encode.yaml``."""

    run: str
    output: Optional[str]  # noqa: UP045
    overwrite: bool
    seed: int
    data: Any
    trainer: Any
    encoder: Any = None


@dataclass
class EvaluateConfig:
    """Root of ``configs/evaluate.yaml``."""

    run: str
    against: Optional[str]  # noqa: UP045
    split: str
    output: Optional[str]  # noqa: UP045
    overwrite: bool
    seed: int
    trainer: Any
    data: Any = None
    encoder: Any = None


@dataclass
class HarvestConfig:
    """Root of ``configs/harvest/harvest.yaml``."""

    layers: Any
    list: bool
    output: str
    tokens: str
    number: Optional[int]  # noqa: UP045
    layout: str
    norm_filter: str
    norm_factor: float
    dtype: str
    batch_size: int
    limit: Optional[int]  # noqa: UP045
    max_skipped: float
    shard_mb: float
    workers: Optional[int]  # noqa: UP045
    device: str
    seed: int
    model: Any
    inputs: Any


@dataclass
class ShowRowsConfig:
    """Root of ``configs/show_rows.yaml``."""

    store: str
    layer: Optional[str]  # noqa: UP045
    rows: Any
    first: Optional[int]  # noqa: UP045
    count: int
    pictures: Optional[str]  # noqa: UP045


@dataclass
class ReportConfig:
    """Root of ``configs/report.yaml``."""

    run: str
    output: Optional[str]  # noqa: UP045
    examples: int
    max_concepts: int
    max_mb: float
    batch_rows: int
    device: str
    seed: int
    data: Any = None
