"""Encode rows with a finished run:  python scripts/encode.py run=<run> data=npy data.path=new.npy"""

from seminmf_lightning.cli.encode import main

if __name__ == "__main__":
    main()
