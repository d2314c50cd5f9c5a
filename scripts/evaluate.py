"""Every figure of a finished run on given rows:  python scripts/evaluate.py run=<run> data=npy
data.path=rows.npy"""

from seminmf_lightning.cli.evaluate import main

if __name__ == "__main__":
    main()
