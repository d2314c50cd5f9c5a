"""Measure a finished run on rows:  python scripts/evaluate.py run=<run> data=npy data.path=rows.npy"""

from seminmf_lightning.cli.main import run

if __name__ == "__main__":
    run("evaluate")
