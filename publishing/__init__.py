"""Publishes pairs of SavedModels that passed the conformance suite.

`releasing` runs the steps of a release: it reads an export with `pairs`, checks it with
`suite_reports`, and sends it to a destination. A destination is a folder (`hub`),
Kaggle (`kaggle`) or Hugging Face (`huggingface`); `upload_files` has their common
interface.
`hub_index`, `hub_site`, `archives`, `verifying` and `serving` are for a hub that is a
folder.
Nothing here imports TensorFlow.
"""
