"""Data that ships with CrispEdit: categories, recipes, prompts, dataset mappings and clusters."""
