"""Marketplace: data sets as tokens, their documents, grants of access, queries that run at their owners, and the relay that pays gas."""
