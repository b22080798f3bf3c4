"""What data scientists write: one ``spec = ModelSpec(...)`` a file, named after the model."""
