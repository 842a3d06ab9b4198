"""Scripts that make what ships: the small models' weights and the contact sheets."""
