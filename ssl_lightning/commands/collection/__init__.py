"""The report of a collection: what `data report` finds in a manifest, and its page."""
