"""Train a nonnegative dictionary:  python scripts/train.py solver=pgd l1_penalty=0.1"""

from seminmf_lightning.cli.train import main

if __name__ == "__main__":
    main()
