"""See what was learned:  python scripts/report.py run=<run>"""

from seminmf_lightning.cli.report import main

if __name__ == "__main__":
    main()
