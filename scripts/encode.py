"""Encode rows with a finished run:  python scripts/encode.py run=<run> data=npy data.path=new.npy"""

from seminmf_lightning.cli.main import run

if __name__ == "__main__":
    run("encode")
