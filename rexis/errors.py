"""Everything that Rexis raises on purpose.

    RexisError
    ├── EncodingError                  bytes that have no canonical form, or are not in it
    ├── VerificationError              a check on someone else's bytes failed: never returned as False
    │   ├── DigestMismatchError        content differs from the digest it was announced with
    │   ├── InclusionProofError        a Merkle proof does not lead from this leaf to this record
    │   ├── SignatureError             a signature is malformed, or by another key
    │   ├── EquivocationError          one party told different parties, or one party twice, different things
    │   ├── InvalidShareError          secret shares that do not open, or do not rebuild what was committed
    │   └── CertificateError           a certificate or its bundle contradicts itself
    ├── ProtocolError                  a message that this state, version or limit does not admit
    │   ├── MalformedMessageError      not parseable, out of bounds, or with unknown fields
    │   ├── UnexpectedMessageError     well formed, at the wrong time or twice with other content
    │   └── BelowThresholdError        too few parties to go on without exposing one of them
    ├── PrivacyError
    │   ├── PrivacyBudgetExceededError a release would spend more than the ledger holds
    │   ├── DisclosureError            the output gate refuses a release
    │   └── PolicyError                the data set's policy does not allow this use
    ├── UnsupportedLayerError          a model part that has no equivariant transform in this mode
    ├── UnsupportedOptimizerError      an optimiser whose step does not commute with this key
    ├── KeyFileError                   a key file that does not open, or fits another model
    ├── ChainError
    │   ├── WrongChainError            chain id, genesis or code differ from the deployment record
    │   └── ContractRevertedError      a contract refused, with its decoded custom error
    ├── ConfigurationError             settings that must not start, with what to change
    ├── LeaseLostError                 another run took this work over: nothing more of it may be written
    ├── UnavailableError               something Rexis depends on does not answer
    └── ServiceError                   a service answered with an RFC 9457 problem

A caller's own mistake in calling a function (a wrong shape, a negative count) stays `ValueError` or `TypeError`.
"""

from typing import Any


class RexisError(Exception):
    """Root of the tree. The message says what was expected, what was found, and what to do."""


class EncodingError(RexisError):
    """Bytes without a canonical form, or not in it."""


class VerificationError(RexisError):
    """A check on bytes that came from someone else failed."""


class DigestMismatchError(VerificationError):
    """Content differs from the digest it was announced with."""

    def __init__(self, what: str, expected: bytes, got: bytes) -> None:
        super().__init__(f"{what}: expected digest 0x{expected.hex()}, got 0x{got.hex()}")
        self.expected = expected
        self.got = got


class InclusionProofError(VerificationError):
    """A Merkle proof does not lead from this leaf to this record."""


class SignatureError(VerificationError):
    """A signature is malformed, or was made by another key."""


class EquivocationError(VerificationError):
    """Two signed or agreed versions of what can only have one: a survivor set, a set of keys, a message of one stage."""


class FalseResultError(VerificationError):
    """A result that was signed for a round does not follow from the sum that it names."""


class InvalidShareError(VerificationError):
    """Secret shares that do not open, or do not rebuild the secret that their dealer committed to.

    Attributes:
        dealer: checksum address of the participant whose secret it is.
    """

    def __init__(self, dealer: str, problem: str) -> None:
        super().__init__(f"shares of {dealer}: {problem}")
        self.dealer = dealer


class CertificateError(VerificationError):
    """A certificate or its bundle contradicts itself."""


class ProtocolError(RexisError):
    """A message that this state, version or limit does not admit."""


class MalformedMessageError(ProtocolError):
    """Bytes that do not parse, exceed a bound, or carry unknown fields."""


class UnexpectedMessageError(ProtocolError):
    """A well-formed message at the wrong time, or a second one with other content."""


class BelowThresholdError(ProtocolError):
    """Too few parties remain to go on without exposing one of them."""

    def __init__(self, what: str, required: int, got: int) -> None:
        super().__init__(f"{what}: at least {required} are required, got {got}")
        self.required = required
        self.got = got


class PrivacyError(RexisError):
    """An action that would expose more than was agreed."""


class PrivacyBudgetExceededError(PrivacyError):
    """A release would spend more than the ledger holds."""


class DisclosureError(PrivacyError):
    """The output gate refuses a release; the message names the rule."""


class PolicyError(PrivacyError):
    """The data set's policy does not allow this use; the message names the rule."""


class UnsupportedLayerError(RexisError):
    """A model part that has no equivariant transform in this mode."""


class UnsupportedOptimizerError(RexisError):
    """An optimiser, or a setting of it, whose step on keyed weights is not the keyed step on plain weights."""


class KeyFileError(RexisError):
    """A key file that does not open, or fits another model."""


class ChainError(RexisError):
    """Something on the chain side went wrong."""


class WrongChainError(ChainError):
    """Chain id, genesis hash or deployed code differ from the deployment record."""


class ContractRevertedError(ChainError):
    """A contract refused a call.

    Attributes:
        contract: name of the contract that declares the error, or "" if the selector is unknown.
        error: name of the custom error, "Error" or "Panic" for the built-in ones, or the raw selector.
        arguments: decoded arguments by name.
        explanation: one sentence for people, or "" if nobody knows the error.
    """

    def __init__(self, contract: str, error: str, arguments: dict[str, Any], explanation: str = "") -> None:
        given = ", ".join(f"{name}={value}" for name, value in arguments.items())
        named = f"{contract + '.' if contract else ''}{error}({given})"
        super().__init__(f"the contract refused: {explanation + f' [{named}]' if explanation else named}")
        self.contract = contract
        self.error = error
        self.arguments = arguments
        self.explanation = explanation


class ConfigurationError(RexisError):
    """Settings that must not start; the message says what to change."""


class LeaseLostError(RexisError):
    """Another run took this work over; whatever this run still wants to write is refused."""


class UnavailableError(RexisError):
    """Something Rexis depends on does not answer."""


class ServiceError(RexisError):
    """A service answered with a problem document (RFC 9457).

    Attributes:
        status: HTTP status.
        problem: the parsed problem document; has at least `type`, `title`, `status`, `detail`.
    """

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"{problem.get('title', 'the service refused')}: {problem.get('detail', '')} (HTTP {status})")
        self.status = status
        self.problem = problem
