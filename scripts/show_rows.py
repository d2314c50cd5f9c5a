"""Show where rows come from:  python scripts/show_rows.py store=harvests/minilm_pydoc 'rows=[0,17]'"""

from seminmf_lightning.cli.main import run

if __name__ == "__main__":
    run("show-rows")
