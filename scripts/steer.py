"""Steer a language model:  python scripts/steer.py run=<run> concept=17 strength=4 prompt="..." """

from seminmf_lightning.cli.main import run

if __name__ == "__main__":
    run("steer")
