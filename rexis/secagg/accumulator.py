"""The sum of the survivors' masked vectors: one buffer of d entries, filled from finished uploads in chunks of any size."""

from collections.abc import Iterable, Mapping

import numpy as np

from rexis.errors import DigestMismatchError, MalformedMessageError, UnexpectedMessageError
from rexis.secagg.blocks import UploadDigest, whole_entries
from rexis.secagg.masks import RingVector
from rexis.secagg.terms import RoundTerms


class MaskedSum:
    """Adds each survivor's vector once, and only whole vectors with the digest their owner signed.

    It is made when the survivor set is closed, never before, so that whoever dies during an upload leaves no trace. After a crash, make it
    again from the stored uploads.

    Args:
        terms: of the attempt.
        digests: checksum address of each survivor → `UploadManifest.digest` of its vector.
    """

    def __init__(self, terms: RoundTerms, digests: Mapping[str, bytes]) -> None:
        self._terms = terms
        self._digests = dict(digests)
        self._added: set[str] = set()
        self._total: RingVector | None = np.zeros(terms.length, dtype=terms.dtype)

    def filled(self, total: RingVector) -> "MaskedSum":
        """This sum with what `take` gave earlier, for whoever kept that instead of the vectors; `total` [d] is used up.

        Raises:
            MalformedMessageError: of another length or ring.
        """
        terms = self._terms
        if total.dtype != terms.dtype or total.shape != (terms.length,):
            raise MalformedMessageError(f"expected a sum of {terms.length} entries of {terms.dtype}, got {total.shape} of {total.dtype}")
        masked_sum = MaskedSum(terms, self._digests)
        masked_sum._total, masked_sum._added = total, set(self._digests)
        return masked_sum

    @property
    def missing(self) -> tuple[str, ...]:
        """Survivors whose vectors are not in the sum yet."""
        return tuple(address for address in self._digests if address not in self._added)

    def add(self, sender: str, chunks: Iterable[bytes | memoryview]) -> None:
        """Add one survivor's vector; a second time changes nothing.

        Args:
            sender: checksum address of a survivor.
            chunks: all bytes of its upload in order.

        Raises:
            UnexpectedMessageError: not a survivor, or an earlier upload spoiled this sum.
            DigestMismatchError, MalformedMessageError: other bytes than announced, or another number of them. The sum is void then:
                start again from the stored uploads, or abort if one of them is lost.
        """
        if sender not in self._digests:
            raise UnexpectedMessageError(f"{sender} is not a survivor: its vector stays out of the sum")
        total = self._buffer()
        if sender in self._added:
            return
        # Until the digest is right, the buffer belongs to nobody.
        self._total = None
        digest, filled = UploadDigest(), 0
        for chunk in whole_entries(chunks, total.itemsize):
            entries = np.frombuffer(chunk[: len(chunk) - len(chunk) % total.itemsize], dtype=total.dtype)
            if filled + len(entries) > len(total) or len(chunk) % total.itemsize:
                raise MalformedMessageError(f"{sender}: expected {total.nbytes} bytes of masked vector, got another number")
            part = total[filled : filled + len(entries)]
            np.add(part, entries, out=part)
            digest.update(chunk)
            filled += len(entries)
        if filled != len(total):
            raise MalformedMessageError(f"{sender}: expected {total.nbytes} bytes of masked vector, got {filled * total.itemsize}")
        found = digest.manifest().digest
        if found != self._digests[sender]:
            raise DigestMismatchError(f"masked vector of {sender}", self._digests[sender], found)
        self._added.add(sender)
        self._total = total

    def take(self) -> RingVector:
        """The sum [d], once, when every survivor is in it.

        Raises:
            UnexpectedMessageError: somebody is missing, or the sum is void.
        """
        total = self._buffer()
        if self.missing:
            raise UnexpectedMessageError(f"the vectors of {', '.join(self.missing)} are not in the sum yet")
        self._total = None
        return total

    def _buffer(self) -> RingVector:
        if self._total is None:
            raise UnexpectedMessageError(
                "this sum is void, by a wrong upload or because it was taken: make it again from the stored uploads"
            )
        return self._total
