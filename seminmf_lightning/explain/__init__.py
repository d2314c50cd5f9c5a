"""One HTML file that shows what was learned: figures, and each concept with its strongest examples at both
poles."""

from seminmf_lightning.explain.page import Report, make_report, require_libraries
from seminmf_lightning.explain.provenance import Harvested, Origins, RowNumbers, origins_of

__all__ = ["Harvested", "Origins", "Report", "RowNumbers", "make_report", "origins_of", "require_libraries"]
