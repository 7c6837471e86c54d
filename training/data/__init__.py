"""Opens the data source given by `--data` and makes batches of images and labels."""
