"""Manifests: a table of every image of a collection, with permanent ids. Built, checked, and read for training."""
