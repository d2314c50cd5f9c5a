"""Write a finished run for another tool:  python scripts/export.py run=<run> format=saelens"""

from seminmf_lightning.cli.main import run

if __name__ == "__main__":
    run("export")
