"""From what `--data` names to batches of images and labels."""
