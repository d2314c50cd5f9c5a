"""Compare the runs of a sweep:  python scripts/compare.py multirun/<date>/<time> [--max-l0 16]"""

from seminmf_lightning.cli.main import run

if __name__ == "__main__":
    run("compare")
