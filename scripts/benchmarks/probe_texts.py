"""Write texts of all tasks inside the package sae-probes, without their labels, for `seminmf harvest`.

python scripts/benchmarks/probe_texts.py texts.jsonl
seminmf harvest model=minilm inputs=text inputs.path=texts.jsonl 'layers=[encoder.layer.2]' limit=1500
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from seminmf_lightning.suites.probing.tasks import read_tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--per-task", type=int, default=18)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tasks = read_tasks(
        None, text="prompt", label="target", count=None, rows=options.per_task, folds=2, seed=options.seed
    )
    texts = list(dict.fromkeys(text for task in tasks for text in task.texts))
    order = np.random.default_rng(options.seed).permutation(len(texts))
    lines = [json.dumps({"text": texts[number]}) for number in order]
    options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{options.output}: {len(lines)} texts of {len(tasks)} tasks")


if __name__ == "__main__":
    main()
