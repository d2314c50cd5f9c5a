"""Write a page of the concepts of a run:  python scripts/report.py run=<run>"""

from seminmf_lightning.cli.main import run

if __name__ == "__main__":
    run("report")
