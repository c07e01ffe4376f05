"""Marketplace: data sets as tokens, their documents, the catalogue, and the relay that pays gas for institutions."""
