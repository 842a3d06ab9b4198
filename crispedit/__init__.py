"""What an image edit is, and the models that make, judge and learn edits."""

__version__ = "0.1.0"
