"""Building: the waves of a build, their containers, steps and verdicts."""
