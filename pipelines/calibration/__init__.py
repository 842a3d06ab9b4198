"""Calibration of filters: on known defects, and on pairs with labels."""
