"""Print the strongest concepts of a text or an image:  python scripts/concepts.py run=<run> text="..." """

from seminmf_lightning.cli.main import run

if __name__ == "__main__":
    run("concepts")
