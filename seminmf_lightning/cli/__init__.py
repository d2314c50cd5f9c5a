"""Commands: ``seminmf <command>``, or ``python scripts/<command>.py`` in a clone.  One file per command.

Importing this package prepares the process of a command, before torch is loaded.
"""

import os

# Idle OpenMP threads spin for about a millisecond on the cores that the compiled encoders need; a tenth
# of that is enough for torch.  OpenMP reads the variable when torch is first imported; children inherit it.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")
