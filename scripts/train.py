"""Train a dictionary of concepts:  python scripts/train.py solver=pgd l1_penalty=0.1"""

from seminmf_lightning.cli.main import run

if __name__ == "__main__":
    run("train")
