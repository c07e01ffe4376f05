"""Tables of the agent's journal, one script for each version: a journal of an earlier version is brought up when it is opened."""

REGISTRATIONS = """
CREATE TABLE lock (one INTEGER PRIMARY KEY CHECK (one = 1), salt BLOB NOT NULL, work_factor INTEGER NOT NULL, sealed_key BLOB NOT NULL);
CREATE TABLE entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    subject TEXT NOT NULL,
    stage TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX ix_entry_subject ON entry (subject, id);
CREATE TRIGGER entry_is_append_only_on_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'journal entries are append-only'); END;
CREATE TRIGGER entry_is_append_only_on_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'journal entries are append-only'); END;
CREATE TABLE salts (
    record BLOB PRIMARY KEY,
    kind TEXT NOT NULL,
    items INTEGER NOT NULL,
    sealed BLOB NOT NULL
);
CREATE TABLE registration (
    id INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,
    chain_id INTEGER NOT NULL,
    registry TEXT NOT NULL,
    forwarder TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    content_root BLOB NOT NULL REFERENCES salts (record),
    stage TEXT NOT NULL CHECK (stage IN ('prepared', 'signed', 'submitted', 'registered', 'failed')),
    metadata BLOB NOT NULL,
    policy BLOB NOT NULL,
    request TEXT,
    relay TEXT,
    token_id INTEGER,
    UNIQUE (owner, chain_id, registry, fingerprint)
);
"""

# Version 2: federations that the institution takes part in.
# `manifest`, `base_model`, `config` and `result` are known to all members; what is sealed, and why, is in `rexis.agent.federation.records`.
FEDERATIONS = """
CREATE TABLE federation (
    id BLOB PRIMARY KEY,
    config BLOB NOT NULL,
    content_root BLOB NOT NULL,
    result BLOB
);
CREATE TABLE attempt (
    federation BLOB NOT NULL REFERENCES federation (id),
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    ctx BLOB NOT NULL UNIQUE,
    base_model BLOB NOT NULL,
    manifest BLOB NOT NULL,
    stage TEXT NOT NULL CHECK (stage IN ('open', 'dropped', 'answered', 'refused')),
    sealed_record BLOB,
    sealed_state BLOB,
    since INTEGER NOT NULL,
    upload TEXT,
    ended INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (federation, round, attempt)
);
CREATE INDEX ix_attempt_base_model ON attempt (base_model);
CREATE INDEX ix_attempt_ended ON attempt (ended);
CREATE TABLE contribution (
    ctx BLOB PRIMARY KEY REFERENCES attempt (ctx),
    sealed_opening BLOB NOT NULL,
    call TEXT NOT NULL
);
CREATE TABLE round_vector (
    federation BLOB NOT NULL REFERENCES federation (id),
    round INTEGER NOT NULL,
    sealed_vector BLOB NOT NULL,
    PRIMARY KEY (federation, round)
);
CREATE TABLE answered_statistic (
    identifier TEXT NOT NULL,
    content_root BLOB NOT NULL,
    federation BLOB NOT NULL REFERENCES federation (id),
    PRIMARY KEY (identifier, content_root)
);
CREATE TRIGGER answered_statistic_stays_on_update BEFORE UPDATE ON answered_statistic
BEGIN SELECT RAISE(ABORT, 'a statistic is answered once'); END;
CREATE TRIGGER answered_statistic_stays_on_delete BEFORE DELETE ON answered_statistic
BEGIN SELECT RAISE(ABORT, 'a statistic is answered once'); END;
"""

# Version 2: what was answered to compute-to-data queries. Populations and results are sealed, released or not (see `execution.ledger`).
QUERIES = """
CREATE TABLE population (
    content_root BLOB NOT NULL,
    ordinal INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (content_root, ordinal)
);
CREATE TABLE answered_query (
    content_root BLOB NOT NULL,
    digest BLOB NOT NULL,
    held TEXT,
    sealed_result BLOB NOT NULL,
    PRIMARY KEY (content_root, digest)
);
CREATE TRIGGER answered_query_stays_on_update BEFORE UPDATE ON answered_query
BEGIN SELECT RAISE(ABORT, 'a query is answered once'); END;
CREATE TRIGGER answered_query_stays_on_delete BEFORE DELETE ON answered_query
BEGIN SELECT RAISE(ABORT, 'a query is answered once'); END;
CREATE TABLE query_job (
    id TEXT PRIMARY KEY,
    dataset INTEGER NOT NULL,
    content_root BLOB NOT NULL,
    consumer TEXT NOT NULL,
    purpose INTEGER NOT NULL,
    query BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('released', 'held', 'refused', 'failed')),
    rule TEXT,
    reviewed INTEGER NOT NULL DEFAULT 0,
    told TEXT
);
CREATE INDEX ix_query_job_state ON query_job (state);
CREATE INDEX ix_query_job_untold ON query_job (id) WHERE told IS NOT state;
"""

# Version 3: what stays at a site between the rounds of a federation (see `federation.site_states`).
SITE_STATES = """
CREATE TABLE site_state (
    federation BLOB NOT NULL REFERENCES federation (id),
    round INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    is_final INTEGER NOT NULL,
    PRIMARY KEY (federation, round)
);
"""

# Version 4: what noisy releases about a data set version cost (see `rexis.agent.privacy_ledger`). Public numbers of the plans.
PRIVACY = """
CREATE TABLE privacy_release (
    content_root BLOB NOT NULL,
    release TEXT NOT NULL,
    event BLOB NOT NULL,
    PRIMARY KEY (content_root, release)
);
CREATE TRIGGER privacy_release_stays_on_update BEFORE UPDATE ON privacy_release
BEGIN SELECT RAISE(ABORT, 'what was debited stays debited'); END;
CREATE TRIGGER privacy_release_stays_on_delete BEFORE DELETE ON privacy_release
BEGIN SELECT RAISE(ABORT, 'what was debited stays debited'); END;
"""

# Version 5: the key that the members and the founder of a federation have, and no aggregator (see `federation.group_keys`), and what they
# compute themselves of its rounds (see `federation.recomputed`): model and state of the newest round only, metrics of all. A founder that
# is no member has both too, so that the federation need not be among those that were joined.
GROUP_KEYS = """
CREATE TABLE group_key (
    federation BLOB PRIMARY KEY,
    recipient BLOB NOT NULL,
    sealed_private BLOB,
    dealing BLOB,
    commitment BLOB,
    sealed_key BLOB
);
CREATE TRIGGER group_key_stays BEFORE UPDATE OF sealed_key, commitment ON group_key WHEN OLD.sealed_key IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a federation has one group key'); END;
CREATE TABLE recomputed_round (
    federation BLOB NOT NULL,
    round INTEGER NOT NULL,
    record BLOB NOT NULL,
    sealed_metrics BLOB NOT NULL,
    sealed_model BLOB,
    sealed_state BLOB,
    PRIMARY KEY (federation, round)
);
CREATE TABLE stated_result (
    federation BLOB NOT NULL,
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    document BLOB NOT NULL,
    PRIMARY KEY (federation, round, attempt)
);
CREATE TABLE given_up_federation (
    federation BLOB PRIMARY KEY,
    reason TEXT NOT NULL
);
"""

# Version 6: which federations asked for counts of a column, answered or refused (see `federation.asked_statistics`). Columns are public
# names of the plans.
ASKED_COLUMNS = """
CREATE TABLE asked_column (
    content_root BLOB NOT NULL,
    column_name TEXT NOT NULL,
    federation BLOB NOT NULL REFERENCES federation (id),
    PRIMARY KEY (content_root, column_name, federation)
);
CREATE TRIGGER asked_column_stays_on_update BEFORE UPDATE ON asked_column
BEGIN SELECT RAISE(ABORT, 'what was asked stays asked'); END;
CREATE TRIGGER asked_column_stays_on_delete BEFORE DELETE ON asked_column
BEGIN SELECT RAISE(ABORT, 'what was asked stays asked'); END;
"""

# Script n leads from version n to version n + 1. A version that was released never changes.
SCRIPTS = (REGISTRATIONS, FEDERATIONS + QUERIES, SITE_STATES, PRIVACY, GROUP_KEYS, ASKED_COLUMNS)
