"""The agent's part when a round's sum is open: it computes the result, states it where only members can, and leaves where it is false."""

from rexis.agent.duty import Event, Report
from rexis.agent.federation.given_up import give_up, given_up
from rexis.agent.federation.member_results import MemberResults
from rexis.agent.federation.records import FederationRecords, Membership, subject_of
from rexis.agent.federation.registry import RegisteredFederation, Registry, Status
from rexis.errors import FalseResultError, RexisError, ServiceError, UnavailableError
from rexis.protocol.manifest import Manifest

# The attempt has moved on meanwhile, or is about to: the next look tells what is due then.
OUT_OF_STEP = frozenset(f"urn:rexis:problem:{kind}" for kind in ("stage-closed", "stage-open", "stage-not-open", "attempt-over"))


class ResultDuty:
    """What an institution does about the results of its federations' rounds.

    Args:
        results: computes and states them.
        records: the journal's.
        registry: this side's own node.
        report: told what happens.
    """

    def __init__(self, results: MemberResults, records: FederationRecords, registry: Registry, report: Report) -> None:
        self._results, self._records, self._registry, self._report = results, records, registry, report
        self._unstated: set[bytes] = set()
        # Federations in which a false result was signed.
        self.left = given_up(records.journal)

    def state(self, member: Membership, manifest: Manifest) -> None:
        """Say what a padded sum is, once this side's node has the attempt's survivors too; also in an attempt that was not joined.

        Raises:
            UnavailableError: the aggregator, or the node, does not answer.
        """
        seen = self._registry.federation(manifest.federation)
        if (seen.round, seen.attempt, seen.status) != (manifest.round, manifest.attempt, Status.FIXED) or manifest.digest in self._unstated:
            return
        subject, detail = subject_of(manifest.federation), {"round": manifest.round, "attempt": manifest.attempt}
        try:
            self._results.state(member, manifest, seen)
        except UnavailableError:
            raise
        except ServiceError as error:
            if error.problem.get("type") not in OUT_OF_STEP:
                raise UnavailableError(f"the aggregator can not take this now: {error}") from error
        except RexisError as error:
            self._unstated.add(manifest.digest)
            self._report(Event("stated no result", subject, {**detail, "reason": str(error)}))
            if isinstance(error, FalseResultError):
                self.leave(manifest.federation, str(error))
        else:
            self._report(Event("stated a result", subject, detail))

    def follow(self, member: Membership, seen: RegisteredFederation) -> None:
        """Compute the rounds that have become final, so that a false result is known before the next round, and after the last one.

        Raises:
            UnavailableError: the node, or the aggregator, does not answer.
        """
        if seen.round < 2 or not member.config.leaves_one_sum:
            return
        try:
            self._results.rounds.after(member.federation, member.config, seen.round - 1)
        except FalseResultError as error:
            self.leave(member.federation, str(error))
        except UnavailableError:
            raise
        except RexisError as error:
            # Asked for again, and refused with this reason, when a round begins.
            self._report(Event("computed no result", subject_of(member.federation), {"round": seen.round - 1, "reason": str(error)}))

    def leave(self, federation: bytes, reason: str) -> None:
        """Take no further part in a federation in which a false result was signed."""
        give_up(self._records.journal, federation, reason)
        self.left.add(federation)
        self._report(Event("gave a federation up", subject_of(federation), {"reason": reason}))
