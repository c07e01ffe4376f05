"""Training on an institution's premises: one round of local steps (`local`), and how good a model is (`evaluation`)."""
