"""Releases pairs of SavedModels that passed the conformance suite.

`releasing` is the order of events; a destination is a folder (`hub`), Kaggle (`kaggle`)
or Hugging Face (`huggingface`). `verifying` and `serving` are for a hub that is a
folder. Nothing here imports TensorFlow.
"""
