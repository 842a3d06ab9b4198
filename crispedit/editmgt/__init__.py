"""EditMGT: a masked generative transformer that edits images by instruction (arXiv 2605.10859), model and sampler."""
