"""Scripts that make the shipped files: the small models' weights and the contact sheets."""
