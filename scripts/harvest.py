"""Harvest activations to disk:  python scripts/harvest.py experiment=minilm_pydoc"""

from seminmf_lightning.cli.harvest import main

if __name__ == "__main__":
    main()
