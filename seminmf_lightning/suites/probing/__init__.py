"""Parts of the suite ``probes``: tasks, texts, features, statistics."""
