"""The output gate: what may leave an institution as the answer to a query. Pure: numbers in, numbers or a refusal out."""
