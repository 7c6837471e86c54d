"""Generates docs/, and the documents that are published with a model.

`page_data` is the data model; `measurements` builds architectures to fill its records
in docs/records, where a manifest is kept as `manifest_summary` shortens it.
`architecture_page`, `front_page`, `model_page` (of one exported model) and
`model_cards` write documents from it, with the templates that `rendering` loads;
`readme` updates the table in README.md. `site` lists all generated files of docs/;
`tutorials` runs the notebooks. Only `measurements` imports TensorFlow.
"""
