"""Studies: many runs of a recipe, and a page that says what differs between them beyond noise."""
