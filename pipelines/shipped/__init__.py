"""Scripts that make the shipped files: the weights of the small models, and the page of recipe keys."""
