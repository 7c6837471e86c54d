"""Describes and releases pairs of SavedModels that passed the conformance suite.

`record` is what is known of a model, `cards` and `page` what is said of it, `site` all
of `docs/`. `releasing` is the order of events of a release; a destination is a folder
(`hub`), Kaggle (`kaggle`) or Hugging Face (`huggingface`). `verifying` and `serving`
are for a hub that is a folder. Nothing here imports TensorFlow.
"""
