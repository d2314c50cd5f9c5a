"""Write activations to disk:  python scripts/harvest.py experiment=minilm_pydoc"""

from seminmf_lightning.cli.main import run

if __name__ == "__main__":
    run("harvest")
