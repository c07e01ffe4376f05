// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {EvaluationCounts} from "./EvaluationCounts.sol";
import {ModelRegistry} from "./ModelRegistry.sol";
import {PositionalTree} from "./PositionalTree.sol";
import {Quorum} from "./Quorum.sol";
import {Transcript} from "./Transcript.sol";

/// @title Evaluations: what was measured, on what, and which of it was audited
/// @notice A provider runs a model on committed data and commits to all of it; only then a seed, which nobody could know or choose
/// before, says what auditors look at; a quorum of them attests a certificate. The chain sees hashes, never a score.
/// @dev Open → Run → Seeded → Attested, with Disputed beside Attested; Revoked and Expired are the ends, and every state but Attested
/// has a last second. One evaluation has one run and one seed: who wants another opens another, and evaluations are counted. Nobody owns
/// this contract.
contract EvaluationRegistry is EvaluationCounts, EIP712, ERC2771Context {
    /// @param specHash Digest of the specification: metric, thresholds, preprocessing, numeric profile.
    /// @param modelOwner Who vouches for the model in the ModelRegistry.
    /// @param dataRecord Record of the test data (tree of kind `data`).
    /// @param keyCommitment Commitment to the id of the key that the evaluation runs under.
    /// @param sequence Any number; another one makes another evaluation of the same.
    /// @param quorum Auditors who must sign, above half of them.
    /// @param nonceUntil Last second for commitments to nonces; `runUntil`, `revealUntil` and `attestUntil` in the same way for
    /// the run, the nonces, and the attestation.
    /// @param auditors Strictly ascending; none is provider, owner of the model, or owner of the data.
    struct Opening {
        bytes32 specHash;
        address modelOwner;
        bytes32 model;
        address dataOwner;
        bytes32 dataRecord;
        bytes32 keyCommitment;
        uint64 sequence;
        uint16 quorum;
        uint48 nonceUntil;
        uint48 runUntil;
        uint48 revealUntil;
        uint48 attestUntil;
        address[] auditors;
    }

    /// @param trace Record of the boundary states (tree of kind `act`).
    /// @param outputs Record of the encrypted outputs (`out`).
    /// @param scores Record of the decrypted, rounded scores (`score`).
    /// @param claimHash Digest of the metrics that are claimed.
    struct Roots {
        bytes32 trace;
        bytes32 outputs;
        bytes32 scores;
        bytes32 claimHash;
    }

    /// @param committed Parties that committed to a nonce, and `revealed` those that revealed it; the data owner is one of them.
    /// @param number This is the data owner's n-th evaluation on this record, from 1; 0 until he agreed.
    /// @param beaconBlock Block whose hash is the beacon.
    /// @param disputeUntil Last second to resolve the latest dispute, which `disputer` raised.
    /// @param transcript Digest of everything that was committed to, in order (wire formats, section 9).
    struct Evaluation {
        address provider;
        Status status;
        uint8 level;
        ModelRegistry.Reason reason;
        uint16 quorum;
        uint16 committed;
        uint16 revealed;
        address modelOwner;
        uint48 nonceUntil;
        uint48 runUntil;
        address dataOwner;
        uint48 revealUntil;
        uint48 attestUntil;
        uint64 beaconBlock;
        uint48 disputeUntil;
        uint48 validUntil;
        uint32 number;
        address disputer;
        bytes32 specHash;
        bytes32 model;
        bytes32 dataRecord;
        bytes32 keyCommitment;
        Roots roots;
        bytes32 transcript;
        bytes32 beacon;
        bytes32 seed;
        bytes32 certificate;
    }

    /// @param commitment keccak256(abi.encode(evaluation, party, nonce)), or zero.
    /// @param nonce As revealed, or zero.
    struct Party {
        address party;
        bytes32 commitment;
        bytes32 nonce;
    }

    /// @param certificate SHA-256 of the certificate.
    /// @param level How much was audited: 1 and 2 a sample, 3 everything.
    struct Attestation {
        bytes32 evaluation;
        bytes32 seed;
        bytes32 certificate;
        uint8 level;
        uint48 validUntil;
    }

    /// @notice An opened leaf of one of the three trees of a run.
    struct Leaf {
        bytes32 kind;
        uint64 count;
        uint64 index;
        uint64 sub;
        bytes32 digest;
        bytes16 salt;
        bytes32[] proof;
    }

    bytes32 public constant ATTESTATION_TYPEHASH =
        keccak256("Attestation(bytes32 evaluation,bytes32 seed,bytes32 certificate,uint8 level,uint48 validUntil)");
    bytes32 public constant REVOCATION_TYPEHASH = keccak256("Revocation(bytes32 evaluation,bytes32 certificate,uint8 reason)");
    bytes32 public constant RESOLUTION_TYPEHASH =
        keccak256("Resolution(bytes32 evaluation,bytes32 certificate,address disputer,bool upheld)");
    bytes32 public constant TRACE_KIND = keccak256("rexis/leaf/act/1");
    bytes32 public constant OUTPUT_KIND = keccak256("rexis/leaf/out/1");
    bytes32 public constant SCORE_KIND = keccak256("rexis/leaf/score/1");

    uint256 public constant MAX_AUDITORS = 16;
    uint8 public constant MAX_LEVEL = 3;
    /// @notice Blocks from the run to the beacon.
    uint64 public constant BEACON_DELAY = 4;
    /// @notice The chain remembers hashes of so many blocks.
    uint64 public constant BEACON_WINDOW = 256;
    uint48 public constant MAX_DURATION = 90 days;
    uint48 public constant MAX_VALIDITY = 730 days;
    uint48 public constant DISPUTE_DURATION = 14 days;

    ModelRegistry public immutable MODELS;

    mapping(bytes32 evaluation => Evaluation) private _evaluations;
    mapping(bytes32 evaluation => address[]) private _parties;
    mapping(bytes32 evaluation => mapping(address party => bytes32)) private _commitments;
    mapping(bytes32 evaluation => mapping(address party => bytes32)) private _nonces;
    mapping(bytes32 evaluation => mapping(address party => bool)) private _hasDisputed;
    mapping(address party => uint256) private _withheld;

    event EvaluationOpened(
        bytes32 indexed evaluation,
        address indexed provider,
        address indexed dataOwner,
        bytes32 specHash,
        address modelOwner,
        bytes32 model,
        bytes32 dataRecord,
        bytes32 keyCommitment,
        uint64 sequence
    );
    /// @notice Follows `EvaluationOpened`.
    event AuditAnnounced(
        bytes32 indexed evaluation,
        uint16 quorum,
        uint48 nonceUntil,
        uint48 runUntil,
        uint48 revealUntil,
        uint48 attestUntil,
        address[] auditors
    );
    event NonceCommitted(bytes32 indexed evaluation, address indexed party, bytes32 commitment);
    event EvaluationCounted(
        bytes32 indexed evaluation, address indexed dataOwner, bytes32 indexed dataRecord, bytes32 model, uint32 number
    );
    event RunCommitted(
        bytes32 indexed evaluation,
        bytes32 trace,
        bytes32 outputs,
        bytes32 scores,
        bytes32 claimHash,
        bytes32 transcript,
        uint64 beaconBlock
    );
    event BeaconFixed(bytes32 indexed evaluation, uint64 beaconBlock, bytes32 beacon);
    event NonceRevealed(bytes32 indexed evaluation, address indexed party, bytes32 nonce);
    event SeedFixed(bytes32 indexed evaluation, bytes32 seed);
    event EvaluationAttested(
        bytes32 indexed evaluation, bytes32 indexed certificate, bytes32 seed, uint8 level, uint48 validUntil, address[] signers
    );
    event EvaluationDisputed(
        bytes32 indexed evaluation,
        bytes32 indexed certificate,
        address indexed disputer,
        uint64 item,
        uint64 boundary,
        bytes32 evidence,
        uint48 disputeUntil
    );
    event DisputeResolved(
        bytes32 indexed evaluation, bytes32 indexed certificate, address indexed disputer, bool upheld, address[] signers
    );
    /// @param signers The owner who revoked, or the auditors.
    event EvaluationRevoked(
        bytes32 indexed evaluation, bytes32 indexed certificate, ModelRegistry.Reason reason, address[] signers
    );
    /// @param from The state whose time ran out.
    /// @param missing Parties without a commitment (Open), or who withheld their nonce (Run); empty in the other states.
    event EvaluationExpired(bytes32 indexed evaluation, Status from, bool beaconMissed, address[] missing);

    error MissingHash();
    error MissingDataOwner();
    error ModelNotAuthorised(address owner, bytes32 model);
    error AuditorsOutOfBounds(uint256 length, uint256 least, uint256 most);
    error QuorumOutOfBounds(uint16 quorum, uint256 least, uint256 most);
    error AuditorNotIndependent(address auditor);
    error TimesOutOfOrder(uint256 earlier, uint256 later);
    error EvaluationTooLong(uint48 attestUntil, uint256 latest);
    error EvaluationExists(bytes32 evaluation);
    error WrongEvaluationStatus(bytes32 evaluation, Status expected, Status got);
    error NotParty(bytes32 evaluation, address caller);
    error NotProvider(bytes32 evaluation, address caller);
    error NotAuditor(bytes32 evaluation, address signer);
    error NotEntitled(bytes32 evaluation, address caller, ModelRegistry.Reason reason);
    error DeadlinePassed(uint48 deadline, uint256 blockTimestamp);
    error NonceAlreadyCommitted(address party, bytes32 commitment);
    error NoncesMissing(uint256 required, uint256 got);
    error NonceAlreadyRevealed(address party, bytes32 nonce);
    error CommitmentMismatch(bytes32 expected, bytes32 got);
    error TranscriptMismatch(bytes32 expected, bytes32 got);
    error BeaconMismatch(bytes32 expected, bytes32 got);
    error BeaconNotYet(uint64 beaconBlock, uint256 blockNumber);
    error BeaconMissed(uint64 beaconBlock, uint256 blockNumber);
    error BeaconAlreadyFixed(bytes32 beacon);
    error SeedMismatch(bytes32 expected, bytes32 got);
    error CertificateMismatch(bytes32 expected, bytes32 got);
    error LevelOutOfBounds(uint8 level, uint8 least, uint8 most);
    error ValidityOutOfBounds(uint48 validUntil, uint256 least, uint256 latest);
    error AlreadyDisputed(bytes32 evaluation, address party);
    error DisputerMismatch(address expected, address got);
    error NotOverdue(bytes32 evaluation, Status status);
    error UnknownKind(bytes32 kind);

    constructor(address forwarder, ModelRegistry models) EIP712("Rexis", "1") ERC2771Context(forwarder) {
        MODELS = models;
    }

    /// @notice Opens an evaluation of a model that its owner vouches for; for whoever will run it. Its id is known beforehand
    /// (`evaluationId`).
    /// @dev Keeps: specification, model, data, key, auditors and times are fixed before anything runs, and are all in the id, so what
    /// somebody agreed to is this and nothing else. Naming a data owner or an auditor binds him to nothing and counts nowhere.
    function open(Opening calldata opening) external returns (bytes32 evaluation) {
        address provider = _msgSender();
        _checkOpening(opening);
        evaluation = evaluationId(provider, opening);
        Evaluation storage made = _evaluations[evaluation];
        if (made.status != Status.Absent) revert EvaluationExists(evaluation);

        made.provider = provider;
        made.status = Status.Open;
        made.quorum = opening.quorum;
        made.modelOwner = opening.modelOwner;
        (made.nonceUntil, made.runUntil) = (opening.nonceUntil, opening.runUntil);
        made.dataOwner = opening.dataOwner;
        (made.revealUntil, made.attestUntil) = (opening.revealUntil, opening.attestUntil);
        made.specHash = opening.specHash;
        made.model = opening.model;
        made.dataRecord = opening.dataRecord;
        made.keyCommitment = opening.keyCommitment;
        _setParties(_parties[evaluation], opening, provider);
        _announce(evaluation, provider, opening);
    }

    /// @notice The data owner or an auditor commits to the nonce that it will mix into the seed. The data owner thereby agrees to the
    /// evaluation, and from here on it counts.
    /// @dev Keeps: one commitment a party, never replaced, and none once there is a run.
    /// @param commitment keccak256(abi.encode(evaluation, party, nonce)) of 32 random bytes: nobody can copy it.
    function commitNonce(bytes32 evaluation, bytes32 commitment) external {
        Evaluation storage current = _inStatus(evaluation, Status.Open);
        address party = _msgSender();
        if (!isParty(evaluation, party)) revert NotParty(evaluation, party);
        _requireInTime(current.nonceUntil);
        if (commitment == 0) revert MissingHash();
        bytes32 present = _commitments[evaluation][party];
        if (present != 0) revert NonceAlreadyCommitted(party, present);

        _commitments[evaluation][party] = commitment;
        ++current.committed;
        emit NonceCommitted(evaluation, party, commitment);
        if (party == current.dataOwner) {
            current.number = _count(party, current.dataRecord, current.model, Status.Open);
            emit EvaluationCounted(evaluation, party, current.dataRecord, current.model, current.number);
        }
    }

    /// @notice The provider commits to the run, once every nonce is committed to.
    /// @dev Keeps: written once; every nonce that will be in the seed was fixed before, and the block of the beacon comes after.
    function commitRun(bytes32 evaluation, Roots calldata roots) external {
        Evaluation storage current = _inStatus(evaluation, Status.Open);
        address caller = _msgSender();
        if (caller != current.provider) revert NotProvider(evaluation, caller);
        _requireInTime(current.runUntil);
        uint256 parties = _parties[evaluation].length;
        if (current.committed != parties) revert NoncesMissing(parties, current.committed);
        if (roots.trace == 0 || roots.outputs == 0 || roots.scores == 0 || roots.claimHash == 0) revert MissingHash();

        current.roots = roots;
        current.transcript = _transcript(evaluation, current);
        current.beaconBlock = uint64(block.number) + BEACON_DELAY;
        _enter(current, Status.Run);
        emit RunCommitted(
            evaluation, roots.trace, roots.outputs, roots.scores, roots.claimHash, current.transcript, current.beaconBlock
        );
    }

    /// @notice Keeps the hash of the beacon's block, before the chain forgets it; for anybody. So nonces can wait until the run is final,
    /// and only this call has to be made within `BEACON_WINDOW` blocks. The first nonce that is revealed in time does it too.
    /// @dev Keeps: the beacon is the hash of exactly one block, whoever asks, and is written once.
    function fixBeacon(bytes32 evaluation) external {
        Evaluation storage current = _inStatus(evaluation, Status.Run);
        if (current.beacon != 0) revert BeaconAlreadyFixed(current.beacon);
        _fixBeacon(evaluation, current);
    }

    /// @notice A party reveals its nonce, for the run and the beacon that it names; the last one makes the seed. A data owner who finds
    /// scores or claim not to be his does not reveal, and the evaluation expires.
    /// @dev Keeps: no nonce is seen before the beacon is there, so who makes blocks can not fit them to nonces; only what was committed to
    /// counts; the seed is there only if every party revealed, and is written once. Run and beacon are named, so a nonce that was seen
    /// before a reorganisation is not mixed with others after it.
    /// @param nonce What this party committed to; nobody else can reveal it.
    function revealNonce(bytes32 evaluation, bytes32 transcript, bytes32 beacon, bytes32 nonce) external {
        Evaluation storage current = _inStatus(evaluation, Status.Run);
        address party = _msgSender();
        bytes32 commitment = _commitments[evaluation][party];
        if (commitment == 0) revert NotParty(evaluation, party);
        _requireInTime(current.revealUntil);
        if (transcript != current.transcript) revert TranscriptMismatch(current.transcript, transcript);
        if (current.beacon == 0) _fixBeacon(evaluation, current);
        if (beacon != current.beacon) revert BeaconMismatch(current.beacon, beacon);
        bytes32 present = _nonces[evaluation][party];
        if (present != 0) revert NonceAlreadyRevealed(party, present);
        bytes32 got = nonceCommitment(evaluation, party, nonce);
        if (nonce == 0 || got != commitment) revert CommitmentMismatch(commitment, got);

        _nonces[evaluation][party] = nonce;
        ++current.revealed;
        emit NonceRevealed(evaluation, party, nonce);
        if (current.revealed == _parties[evaluation].length) {
            current.seed = Transcript.seed(transcript, beacon, _revealed(evaluation));
            _enter(current, Status.Seeded);
            emit SeedFixed(evaluation, current.seed);
        }
    }

    /// @notice Records the certificate of an evaluation; for anybody who has the signatures of a quorum of its auditors.
    /// @dev Keeps: one certificate an evaluation. Auditors sign the seed by which they chose what to look at, so a signature counts for
    /// that audit only; and a certificate ends, within `MAX_VALIDITY`.
    function attest(Attestation calldata attestation, Quorum.Approval[] calldata approvals) external {
        bytes32 evaluation = attestation.evaluation;
        Evaluation storage current = _inStatus(evaluation, Status.Seeded);
        _requireInTime(current.attestUntil);
        if (attestation.seed != current.seed) revert SeedMismatch(current.seed, attestation.seed);
        if (attestation.certificate == 0) revert MissingHash();
        if (attestation.level == 0 || attestation.level > MAX_LEVEL) revert LevelOutOfBounds(attestation.level, 1, MAX_LEVEL);
        uint256 latest = block.timestamp + MAX_VALIDITY;
        if (attestation.validUntil <= block.timestamp || attestation.validUntil > latest) {
            revert ValidityOutOfBounds(attestation.validUntil, block.timestamp + 1, latest);
        }
        address[] memory signers = _requireQuorum(evaluation, current, hashAttestation(attestation), approvals);

        current.certificate = attestation.certificate;
        current.level = attestation.level;
        current.validUntil = attestation.validUntil;
        _enter(current, Status.Attested);
        emit EvaluationAttested(
            evaluation, attestation.certificate, attestation.seed, attestation.level, attestation.validUntil, signers
        );
    }

    /// @notice The owner of the model or of the data takes an evaluation back, for good, from the seed on. (Before it, not to go on is
    /// enough: it expires.) The model's owner may say ModelWithdrawn, the data's owner DataWithdrawn, both KeyCompromise and Superseded.
    /// @dev Keeps: nobody gives another's reasons; revoked is terminal, and the first reason stands.
    function revoke(bytes32 evaluation, ModelRegistry.Reason reason) external {
        Evaluation storage current = _revocable(evaluation);
        address caller = _msgSender();
        if (!_mayRevoke(current, caller, reason)) revert NotEntitled(evaluation, caller, reason);
        address[] memory signers = new address[](1);
        signers[0] = caller;
        _revoke(evaluation, current, reason, signers);
    }

    /// @notice A quorum of the auditors revokes, from the seed on: AuditFailed, ToolingBug, KeyCompromise or Superseded. Instead of an
    /// attestation this says that the audit failed; then `certificate` is zero.
    /// @dev Keeps: it takes as many auditors to take a certificate back as to give it; whether consent or model were withdrawn is for their
    /// owners to say.
    function revokeByAuditors(
        bytes32 evaluation,
        bytes32 certificate,
        ModelRegistry.Reason reason,
        Quorum.Approval[] calldata approvals
    ) external {
        Evaluation storage current = _revocable(evaluation);
        if (certificate != current.certificate) revert CertificateMismatch(current.certificate, certificate);
        if (
            reason == ModelRegistry.Reason.None || reason == ModelRegistry.Reason.ModelWithdrawn
                || reason == ModelRegistry.Reason.DataWithdrawn
        ) revert NotEntitled(evaluation, _msgSender(), reason);
        address[] memory signers =
            _requireQuorum(evaluation, current, hashRevocation(evaluation, certificate, reason), approvals);
        _revoke(evaluation, current, reason, signers);
    }

    /// @notice The data owner or one auditor says that a unit was not what was committed to, or was not opened. The certificate does not
    /// stand while the auditors have not judged; if they do not within `DISPUTE_DURATION`, it expires.
    /// @dev Keeps: each party disputes an evaluation once, so nobody alone holds a certificate down for good; no answer counts as guilty.
    /// @param item Index of the item, `boundary` of its state in the trace; see `verify` for what was committed to there.
    /// @param evidence Digest of what the dispute rests on, which the parties hold.
    function dispute(bytes32 evaluation, uint64 item, uint64 boundary, bytes32 evidence) external {
        Evaluation storage current = _inStatus(evaluation, Status.Attested);
        address party = _msgSender();
        if (!isParty(evaluation, party)) revert NotParty(evaluation, party);
        if (evidence == 0) revert MissingHash();
        if (_hasDisputed[evaluation][party]) revert AlreadyDisputed(evaluation, party);

        _hasDisputed[evaluation][party] = true;
        current.disputer = party;
        current.disputeUntil = uint48(block.timestamp) + DISPUTE_DURATION;
        _enter(current, Status.Disputed);
        emit EvaluationDisputed(evaluation, current.certificate, party, item, boundary, evidence, current.disputeUntil);
    }

    /// @notice A quorum of the auditors judges the dispute: upheld, and the audit has failed; or dismissed, and the certificate stands again.
    /// @dev Keeps: every dispute is judged once, by as many as attested; a party disputes once, so its name says which dispute is meant.
    function resolve(bytes32 evaluation, address disputer, bool upheld, Quorum.Approval[] calldata approvals) external {
        Evaluation storage current = _inStatus(evaluation, Status.Disputed);
        _requireInTime(current.disputeUntil);
        if (disputer != current.disputer) revert DisputerMismatch(current.disputer, disputer);
        bytes32 certificate = current.certificate;
        bytes32 digest = hashResolution(evaluation, certificate, disputer, upheld);
        address[] memory signers = _requireQuorum(evaluation, current, digest, approvals);

        emit DisputeResolved(evaluation, certificate, disputer, upheld, signers);
        // Back to a state that was counted before.
        if (!upheld) current.status = Status.Attested;
        else _revoke(evaluation, current, ModelRegistry.Reason.AuditFailed, signers);
    }

    /// @notice Ends an evaluation whose time ran out: without all nonces or a run, with a beacon that nobody fixed in time, with a nonce
    /// that was withheld, without attestation, or with a dispute that nobody judged. For anybody.
    /// @dev Keeps: every state has an exit, and none is free: it counts for the data, and for every party that withheld its nonce.
    function expire(bytes32 evaluation) external {
        Evaluation storage current = _evaluations[evaluation];
        Status from = current.status;
        if (!isOverdue(evaluation)) revert NotOverdue(evaluation, from);

        bool beaconMissed = from == Status.Run && current.beacon == 0;
        address[] memory missing = _missing(evaluation, from);
        if (from == Status.Run && !beaconMissed) {
            for (uint256 i = 0; i < missing.length; ++i) {
                ++_withheld[missing[i]];
            }
        }
        // What the data owner did not agree to counts nowhere.
        if (current.number == 0) current.status = Status.Expired;
        else _enter(current, Status.Expired);
        emit EvaluationExpired(evaluation, from, beaconMissed, missing);
    }

    /// @notice Everything about an evaluation, in one answer; all zero if there is none.
    /// @return evaluation_ What was committed to, and its state.
    /// @return parties Data owner and auditors, strictly ascending, with their nonces: the order in which the seed mixes them.
    function get(bytes32 evaluation) external view returns (Evaluation memory evaluation_, Party[] memory parties) {
        address[] storage listed = _parties[evaluation];
        parties = new Party[](listed.length);
        for (uint256 i = 0; i < listed.length; ++i) {
            address party = listed[i];
            parties[i] = Party(party, _commitments[evaluation][party], _nonces[evaluation][party]);
        }
        return (_evaluations[evaluation], parties);
    }

    /// @notice What was attested of an evaluation, whatever became of it; zero if nothing was.
    function certificateOf(bytes32 evaluation) external view returns (bytes32 certificate, uint8 level, uint48 validUntil) {
        Evaluation storage current = _evaluations[evaluation];
        return (current.certificate, current.level, current.validUntil);
    }

    /// @notice Whether this is the certificate of this evaluation and stands now: attested, not disputed, revoked or past its time, of a
    /// model that its owner still vouches for.
    /// @dev Asked by both: anybody can have the hash of another's certificate attested in an evaluation of his own.
    function standing(bytes32 evaluation, bytes32 certificate) external view returns (bool) {
        Evaluation storage current = _evaluations[evaluation];
        return current.status == Status.Attested && current.certificate == certificate && block.timestamp <= current.validUntil
            && MODELS.isAuthorised(current.modelOwner, current.model);
    }

    /// @notice Whether `expire` would end it.
    function isOverdue(bytes32 evaluation) public view returns (bool) {
        Evaluation storage current = _evaluations[evaluation];
        Status status = current.status;
        if (status == Status.Open) {
            bool incomplete = current.committed != _parties[evaluation].length;
            return block.timestamp > (incomplete ? current.nonceUntil : current.runUntil);
        }
        if (status == Status.Run) {
            bool forgotten = current.beacon == 0 && block.number > uint256(current.beaconBlock) + BEACON_WINDOW;
            return forgotten || block.timestamp > current.revealUntil;
        }
        if (status == Status.Seeded) return block.timestamp > current.attestUntil;
        return status == Status.Disputed && block.timestamp > current.disputeUntil;
    }

    /// @notice Whether somebody gives a nonce: the data owner, or an auditor.
    function isParty(bytes32 evaluation, address who) public view returns (bool) {
        address[] storage parties = _parties[evaluation];
        for (uint256 i = 0; i < parties.length; ++i) {
            if (parties[i] == who) return true;
        }
        return false;
    }

    /// @notice In how many evaluations this party committed to a nonce and withheld it once the beacon was known.
    function withheldBy(address party) external view returns (uint256) {
        return _withheld[party];
    }

    /// @notice Reverts unless the run committed to this leaf: boundary states, outputs and scores, by kind.
    /// @dev Keeps: at most one digest and salt verify for an index of a tree.
    function verify(bytes32 evaluation, Leaf calldata opened) external view {
        Roots memory roots = _evaluations[evaluation].roots;
        bytes32 record;
        if (opened.kind == TRACE_KIND) record = roots.trace;
        else if (opened.kind == OUTPUT_KIND) record = roots.outputs;
        else if (opened.kind == SCORE_KIND) record = roots.scores;
        else revert UnknownKind(opened.kind);
        bytes32 leaf =
            PositionalTree.leaf(opened.kind, contextOf(evaluation), opened.index, opened.sub, opened.digest, opened.salt);
        PositionalTree.verify(record, opened.kind, opened.count, opened.index, leaf, opened.proof);
    }

    /// @notice Context of every leaf of the trees of a run (wire formats, section 2).
    function contextOf(bytes32 evaluation) public view returns (bytes32) {
        return PositionalTree.contextOf(block.chainid, address(this), evaluation);
    }

    /// @notice Id of the evaluation that this provider makes of this opening.
    function evaluationId(address provider, Opening calldata opening) public view returns (bytes32) {
        bytes32 terms = keccak256(
            abi.encode(
                opening.quorum, opening.nonceUntil, opening.runUntil, opening.revealUntil, opening.attestUntil, opening.auditors
            )
        );
        return keccak256(
            abi.encode(
                block.chainid,
                address(this),
                provider,
                opening.specHash,
                opening.modelOwner,
                opening.model,
                opening.dataOwner,
                opening.dataRecord,
                opening.keyCommitment,
                opening.sequence,
                terms
            )
        );
    }

    /// @notice What a party commits to: its nonce, for this evaluation and nobody else.
    function nonceCommitment(bytes32 evaluation, address party, bytes32 nonce) public pure returns (bytes32) {
        return keccak256(abi.encode(evaluation, party, nonce));
    }

    /// @notice EIP-712 digest that auditors sign to attest a certificate.
    function hashAttestation(Attestation calldata attestation) public view returns (bytes32) {
        // All members are words of their own, so the struct's encoding is EIP-712's.
        return _hashTypedDataV4(keccak256(abi.encode(ATTESTATION_TYPEHASH, attestation)));
    }

    /// @notice EIP-712 digest that auditors sign to revoke.
    function hashRevocation(bytes32 evaluation, bytes32 certificate, ModelRegistry.Reason reason)
        public
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(keccak256(abi.encode(REVOCATION_TYPEHASH, evaluation, certificate, uint8(reason))));
    }

    /// @notice EIP-712 digest that auditors sign to judge a dispute.
    function hashResolution(bytes32 evaluation, bytes32 certificate, address disputer, bool upheld)
        public
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(keccak256(abi.encode(RESOLUTION_TYPEHASH, evaluation, certificate, disputer, upheld)));
    }

    function _checkOpening(Opening calldata opening) private view {
        if (opening.specHash == 0 || opening.dataRecord == 0 || opening.keyCommitment == 0) revert MissingHash();
        if (opening.dataOwner == address(0)) revert MissingDataOwner();
        if (!MODELS.isAuthorised(opening.modelOwner, opening.model)) {
            revert ModelNotAuthorised(opening.modelOwner, opening.model);
        }
        uint256 n = opening.auditors.length;
        if (n == 0 || n > MAX_AUDITORS) revert AuditorsOutOfBounds(n, 1, MAX_AUDITORS);
        if (opening.quorum <= n / 2 || opening.quorum > n) revert QuorumOutOfBounds(opening.quorum, n / 2 + 1, n);
        _requireBefore(block.timestamp, opening.nonceUntil);
        _requireBefore(opening.nonceUntil, opening.runUntil);
        _requireBefore(opening.runUntil, opening.revealUntil);
        _requireBefore(opening.revealUntil, opening.attestUntil);
        if (opening.attestUntil > block.timestamp + MAX_DURATION) {
            revert EvaluationTooLong(opening.attestUntil, block.timestamp + MAX_DURATION);
        }
    }

    /// @dev Auditors and, at its place among them, the data owner.
    function _setParties(address[] storage parties, Opening calldata opening, address provider) private {
        address dataOwner = opening.dataOwner;
        address previous = address(0);
        for (uint256 i = 0; i < opening.auditors.length; ++i) {
            address auditor = Quorum.ascend(previous, opening.auditors[i]);
            if (auditor == dataOwner || auditor == provider || auditor == opening.modelOwner) {
                revert AuditorNotIndependent(auditor);
            }
            if (previous < dataOwner && dataOwner < auditor) parties.push(dataOwner);
            parties.push(auditor);
            previous = auditor;
        }
        if (previous < dataOwner) parties.push(dataOwner);
    }

    function _announce(bytes32 evaluation, address provider, Opening calldata opening) private {
        emit EvaluationOpened(
            evaluation,
            provider,
            opening.dataOwner,
            opening.specHash,
            opening.modelOwner,
            opening.model,
            opening.dataRecord,
            opening.keyCommitment,
            opening.sequence
        );
        emit AuditAnnounced(
            evaluation,
            opening.quorum,
            opening.nonceUntil,
            opening.runUntil,
            opening.revealUntil,
            opening.attestUntil,
            opening.auditors
        );
    }

    function _fixBeacon(bytes32 evaluation, Evaluation storage current) private {
        uint64 place = current.beaconBlock;
        if (block.number <= place) revert BeaconNotYet(place, block.number);
        bytes32 beacon = blockhash(place);
        if (beacon == 0) revert BeaconMissed(place, block.number);
        current.beacon = beacon;
        emit BeaconFixed(evaluation, place, beacon);
    }

    function _revoke(bytes32 evaluation, Evaluation storage current, ModelRegistry.Reason reason, address[] memory signers)
        private
    {
        current.reason = reason;
        _enter(current, Status.Revoked);
        emit EvaluationRevoked(evaluation, current.certificate, reason, signers);
    }

    function _enter(Evaluation storage current, Status status) private {
        current.status = status;
        _count(current.dataOwner, current.dataRecord, current.model, status);
    }

    function _transcript(bytes32 evaluation, Evaluation storage current) private view returns (bytes32 digest) {
        digest = Transcript.start(block.chainid, address(this), evaluation);
        digest = Transcript.absorb(digest, "specHash", current.specHash);
        digest = Transcript.absorb(digest, "modelRecord", current.model);
        digest = Transcript.absorb(digest, "dataRecord", current.dataRecord);
        digest = Transcript.absorb(digest, "keyCommit", current.keyCommitment);
        digest = Transcript.absorb(digest, "traceRecord", current.roots.trace);
        digest = Transcript.absorb(digest, "outputsRecord", current.roots.outputs);
        digest = Transcript.absorb(digest, "scoresRecord", current.roots.scores);
        digest = Transcript.absorb(digest, "claimHash", current.roots.claimHash);
    }

    function _revealed(bytes32 evaluation) private view returns (bytes32[] memory nonces) {
        address[] storage parties = _parties[evaluation];
        nonces = new bytes32[](parties.length);
        for (uint256 i = 0; i < nonces.length; ++i) {
            nonces[i] = _nonces[evaluation][parties[i]];
        }
    }

    function _missing(bytes32 evaluation, Status status) private view returns (address[] memory missing) {
        if (status != Status.Open && status != Status.Run) return missing;
        address[] storage parties = _parties[evaluation];
        mapping(address => bytes32) storage given = status == Status.Open ? _commitments[evaluation] : _nonces[evaluation];
        uint256 present = status == Status.Open ? _evaluations[evaluation].committed : _evaluations[evaluation].revealed;
        missing = new address[](parties.length - present);
        uint256 next = 0;
        for (uint256 i = 0; i < parties.length; ++i) {
            if (given[parties[i]] == 0) missing[next++] = parties[i];
        }
    }

    /// @dev Reverts unless a quorum of this evaluation's auditors signed, and nobody else.
    function _requireQuorum(
        bytes32 evaluation,
        Evaluation storage current,
        bytes32 digest,
        Quorum.Approval[] calldata approvals
    ) private view returns (address[] memory signers) {
        signers = Quorum.requireSigned(approvals, digest, current.quorum);
        for (uint256 i = 0; i < signers.length; ++i) {
            if (signers[i] == current.dataOwner || !isParty(evaluation, signers[i])) revert NotAuditor(evaluation, signers[i]);
        }
    }

    function _revocable(bytes32 evaluation) private view returns (Evaluation storage current) {
        current = _evaluations[evaluation];
        Status status = current.status;
        if (status != Status.Seeded && status != Status.Attested && status != Status.Disputed) {
            revert WrongEvaluationStatus(evaluation, Status.Attested, status);
        }
    }

    function _mayRevoke(Evaluation storage current, address caller, ModelRegistry.Reason reason) private view returns (bool) {
        bool ofModel = caller == current.modelOwner;
        bool ofData = caller == current.dataOwner;
        if (reason == ModelRegistry.Reason.ModelWithdrawn) return ofModel;
        if (reason == ModelRegistry.Reason.DataWithdrawn) return ofData;
        bool shared = reason == ModelRegistry.Reason.KeyCompromise || reason == ModelRegistry.Reason.Superseded;
        return shared && (ofModel || ofData);
    }

    function _inStatus(bytes32 evaluation, Status expected) private view returns (Evaluation storage current) {
        current = _evaluations[evaluation];
        if (current.status != expected) revert WrongEvaluationStatus(evaluation, expected, current.status);
    }

    function _requireInTime(uint48 deadline) private view {
        if (block.timestamp > deadline) revert DeadlinePassed(deadline, block.timestamp);
    }

    function _requireBefore(uint256 earlier, uint256 later) private pure {
        if (later <= earlier) revert TimesOutOfOrder(earlier, later);
    }
}
