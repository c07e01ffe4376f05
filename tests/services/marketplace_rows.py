"""Rows as the marketplace's index writes them, for tests that have no chain."""

from sqlalchemy.orm import Session

from rexis.encoding import canonical_json
from services.marketplace import documents
from services.marketplace.models import AccessChange, CatalogueEntry, ComputeJob

POLICY = {"version": 1, "permission": "NRES", "diseases": [], "modifiers": {}}


def add_granted_data_set(session: Session, owner: str) -> None:
    """Data set 1, without restriction, and its owner's own grant for purpose 4 (NRES)."""
    digest = documents.store(session, documents.CheckedDocument(canonical_json(POLICY)))
    zeros = "0x" + 64 * "0"
    session.add(
        CatalogueEntry(
            token_id=1,
            registrant=owner,
            owner=owner,
            owner_epoch=0,
            state="active",
            content_root=zeros,
            policy_hash=digest,
            policy_version=1,
            metadata_hash=zeros,
            metadata_version=1,
            uri="",
            royalty_bps=0,
            block_number=1,
            transaction_hash=zeros,
        )
    )
    session.add(
        AccessChange(
            dataset=1,
            purpose=4,
            consumer=owner,
            grant_epoch=1,
            latest=True,
            decided_by=owner,
            until=2**40,
            conditions_hash=zeros,
            policy_version=1,
            owner_epoch=0,
            block_number=1,
            transaction_hash=zeros,
        )
    )
    session.flush()


def add_compute_job(session: Session, owner: str) -> str:
    """A job about data set 1 that is its owner's in every role; its id."""
    digest = "0x" + 64 * "7"
    job = ComputeJob(
        id=digest,
        dataset=1,
        consumer=owner,
        provider=owner,
        arbiter=owner,
        purpose=4,
        algorithm=digest,
        document=digest,
        token="0x" + 40 * "0",
        price="0",
        run_seconds=1,
        review_seconds=3600,
        state="requested",
        deadline=1,
        block_number=1,
        transaction_hash=digest,
    )
    session.add(job)
    session.flush()
    return job.id
