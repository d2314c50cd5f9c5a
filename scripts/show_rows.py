"""Where rows come from:  python scripts/show_rows.py store=harvests/minilm_pydoc rows=[0,17,4096]"""

from seminmf_lightning.cli.show_rows import main

if __name__ == "__main__":
    main()
