"""Callbacks: progress bar, TensorBoard, files of a run."""

RENAMED = {
    f"seminmf_lightning.{before}": f"seminmf_lightning.training.{now}"
    for before, now in {
        "callbacks.ProgressBar": "callbacks.progress_bar.ProgressBar",
        "callbacks.Histograms": "callbacks.histograms.Histograms",
        "callbacks.SaveDictionary": "callbacks.save_dictionary.SaveDictionary",
        "gallery.Gallery": "callbacks.tensorboard_images.Gallery",
        "timed_checkpoint.TimedCheckpoint": "preemption.TimedCheckpoint",
        "checkpoint_io.AtomicCheckpointIO": "checkpoints.AtomicCheckpointIO",
    }.items()
}
"""Targets that YAML files written for version 0.1.0 may name, and where they are now."""
