"""What each party could see in the story, and what the story does not prove."""

_SEEN = (
    (
        "a hospital",
        "its own table, keys and journal; every global model; the summed statistics",
        "rows, counts, losses and updates of the others",
    ),
    (
        "research group",
        "the catalogue, released tables, its federations' models and mean losses",
        "rows, suppressed cells, held answers, updates",
    ),
    (
        "marketplace",
        "fields, types, terms of use, size in one digit; requests, queries and released answers",
        "rows, exact counts, salts, held answers",
    ),
    (
        "aggregator",
        "masked vectors, opened sums of at least three hospitals, the global models",
        "any single update, loss or number of patients",
    ),
    (
        "trainer",
        "an encrypted model, encrypted patients and answers; how many, and when",
        "plaintext, unless it works with somebody who knows the model (hospitals, research group, aggregator) or enough of the patients",
    ),
    ("verifier", "receipts: digests and signatures, who asked and when", "inputs, outputs, weights"),
    ("chain", "hashes, addresses, times, grants, who survived a round", "everything else"),
)
VIEWS = [{"party": party, "saw": saw, "hidden": hidden} for party, saw, hidden in _SEEN]

_LIMITS = """
Encryption of the network is obfuscation only here: all four hospitals, the research group and the aggregator know the plain model, and
whoever holds it and the encrypted one recovers the key. Against a provider who works with one of them, or knows a few of the patients, it
protects nothing.

Secure aggregation hides single updates from an aggregator that follows the protocol, and from it together with one hospital. The global
models and each round's sum are seen by all members; without noise they may still tell something about patients, and this run adds none.

One split of 740 patients examined before 1988. The intervals overlap: the gain over the best single hospital shows in the AUC, not in
accuracy, and a hospital with many patients gains little on its own patients.

A receipt shows that the provider gave this answer and can not take it back, not that the model is any good.

All parties ran on one machine, on a development chain that its operator could rewrite. What a network, separate operators and a public
chain add was not tried here.

The output gate stops tables that point at persons. It does not stop every combination of many overlapping tables; the hospitals' query
budgets bound those.
"""
LIMITS = [" ".join(paragraph.split()) for paragraph in _LIMITS.strip().split("\n\n")]
