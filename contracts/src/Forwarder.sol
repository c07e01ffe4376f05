// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";
import {KeyDelegation} from "./KeyDelegation.sol";

/// @notice A call that an institution signs (EIP-712), or a key that it delegated to, and a service sends.
struct Request {
    address from;
    address to;
    uint256 gas;
    uint256 nonce;
    uint48 deadline;
    bytes data;
}

/// @title The one way to act on Rexis contracts without holding ether (ERC-2771)
/// @notice Whoever sends a request pays for it and can neither change it, repeat it, nor use it elsewhere.
/// @dev Requests carry no ether. The core is immutable: a new version is a new contract at a new address, and targets choose it
/// in their constructor. The contract of delegated keys comes with the forwarder, so neither can be given another one.
contract Forwarder is EIP712, Ownable2Step {
    using BitMaps for BitMaps.BitMap;

    bytes32 public constant REQUEST_TYPEHASH =
        keccak256("Request(address from,address to,uint256 gas,uint256 nonce,uint48 deadline,bytes data)");

    /// @dev Gas set aside between the check of what is left and the call itself: a cold account and the copied call data.
    uint256 private constant CALL_OVERHEAD = 5_000;

    /// @notice Which keys may sign for an institution; a target from the first block on.
    KeyDelegation public immutable DELEGATIONS;

    /// @notice Contracts that requests may call.
    mapping(address target => bool) public isTarget;

    /// @dev One word holds 256 neighbouring nonces: an institution that counts upwards pays a fresh word once in 256 calls.
    mapping(address from => BitMaps.BitMap) private _usedNonces;

    /// @dev Nonces of calls about keys. An agent makes none, so it can not spend the number of the revocation that is to end it.
    mapping(address from => BitMaps.BitMap) private _usedKeyNonces;

    event TargetChanged(address indexed target, bool allowed);
    /// @param signer `from`, also where its code accepted the signature (ERC-1271), or the key that it delegated to.
    event RequestExecuted(address indexed from, address indexed to, address indexed signer, uint256 nonce, bytes4 selector);

    error RequestExpired(uint48 deadline, uint256 blockTimestamp);
    error NonceAlreadyUsed(address from, uint256 nonce);
    error TargetNotAllowed(address target);
    error TargetDistrustsForwarder(address target);
    error TargetNotRemovable(address target);
    error InsufficientGas(uint256 required, uint256 available);
    /// @notice The signature is well formed, but over other bytes (another request, chain or forwarder) or by another key.
    error SignerMismatch(address expected, address recovered);
    error WalletRefusedSignature(address wallet);
    error DelegationRevoked(address from, address signer);
    error DelegationExpired(address from, address signer, uint48 until, uint256 blockTimestamp);
    error OutsideDelegation(address from, address signer, address to, bytes4 selector);
    /// @notice What a delegated key signs names its function: the target would take missing bytes of it from the appended sender.
    error FunctionMissing(address from, address signer, uint256 length);

    constructor(address initialOwner) EIP712("RexisForwarder", "1") Ownable(initialOwner) {
        DELEGATIONS = new KeyDelegation(address(this));
        isTarget[address(DELEGATIONS)] = true;
        emit TargetChanged(address(DELEGATIONS), true);
    }

    /// @notice Adds or removes a contract that requests may call.
    /// @dev Keeps: every target trusts this forwarder, so the appended sender is read and never ignored; and no owner stands between
    /// an institution and the revocation of its keys.
    function setTarget(address target, bool allowed) external onlyOwner {
        if (!allowed && target == address(DELEGATIONS)) revert TargetNotRemovable(target);
        if (allowed && (target.code.length == 0 || !ERC2771Context(target).isTrustedForwarder(address(this)))) {
            revert TargetDistrustsForwarder(target);
        }
        isTarget[target] = allowed;
        emit TargetChanged(target, allowed);
    }

    /// @notice Executes a signed request once and returns what the target returned.
    /// @dev Keeps: a nonce is used if and only if its call succeeded. A revert of the target passes through unchanged and undoes
    /// everything, so the request stays valid until its deadline. The nonce is written before the call: no reentrant second use.
    /// An institution and its delegated keys share its nonces, but for those of its calls to `DELEGATIONS`, which only it can make.
    function execute(Request calldata request, bytes calldata signature) external returns (bytes memory result) {
        address signer = _check(request, signature);
        _noncesOf(request).set(request.nonce);

        bytes memory data = abi.encodePacked(request.data, request.from);
        // EIP-150 passes on at most 63/64: without this check a sender could starve the call and still see it run.
        uint256 left = gasleft();
        uint256 available = left - left / 64;
        available = available > CALL_OVERHEAD ? available - CALL_OVERHEAD : 0;
        if (available < request.gas) revert InsufficientGas(request.gas, available);
        (bool success, bytes memory returned) = request.to.call{gas: request.gas}(data);
        result = Address.verifyCallResult(success, returned);
        emit RequestExecuted(request.from, request.to, signer, request.nonce, bytes4(request.data));
    }

    /// @notice Reverts unless `execute` would accept the request now; says nothing about the call inside.
    function verify(Request calldata request, bytes calldata signature) external view {
        _check(request, signature);
    }

    /// @notice EIP-712 digest that is signed: bound to this chain and this contract.
    function hashRequest(Request calldata request) public view returns (bytes32) {
        return _hashTypedDataV4(
            keccak256(
                abi.encode(
                    REQUEST_TYPEHASH,
                    request.from,
                    request.to,
                    request.gas,
                    request.nonce,
                    request.deadline,
                    keccak256(request.data)
                )
            )
        );
    }

    /// @notice Whether a nonce is spent, of calls to any target but `DELEGATIONS`. Nonces are any numbers in any order, so parallel
    /// requests do not block each other.
    function nonceUsed(address from, uint256 nonce) external view returns (bool) {
        return _usedNonces[from].get(nonce);
    }

    /// @notice Whether a nonce of calls to `DELEGATIONS` is spent.
    function keyNonceUsed(address from, uint256 nonce) external view returns (bool) {
        return _usedKeyNonces[from].get(nonce);
    }

    function _check(Request calldata request, bytes calldata signature) private view returns (address signer) {
        if (!isTarget[request.to]) revert TargetNotAllowed(request.to);
        if (block.timestamp > request.deadline) revert RequestExpired(request.deadline, block.timestamp);
        if (_noncesOf(request).get(request.nonce)) revert NonceAlreadyUsed(request.from, request.nonce);
        return _signerOf(request, signature);
    }

    function _noncesOf(Request calldata request) private view returns (BitMaps.BitMap storage) {
        return request.to == address(DELEGATIONS) ? _usedKeyNonces[request.from] : _usedNonces[request.from];
    }

    /// @dev A key's signature counts even if its account has code (EIP-7702 accounts), then that of a key it delegated to; else the
    /// code decides (ERC-1271). What an agent delegated is never asked for: a delegation leads one step.
    function _signerOf(Request calldata request, bytes calldata signature) private view returns (address) {
        address from = request.from;
        bytes32 digest = hashRequest(request);
        (address recovered, ECDSA.RecoverError problem, bytes32 detail) = ECDSA.tryRecoverCalldata(digest, signature);
        KeyDelegation.Status status = KeyDelegation.Status.Absent;
        if (problem == ECDSA.RecoverError.NoError) {
            if (recovered == from) return from;
            status = DELEGATIONS.statusOf(from, recovered, request.to, bytes4(request.data));
            if (status == KeyDelegation.Status.Active && request.data.length >= 4) return recovered;
        }
        if (from.code.length != 0 && SignatureChecker.isValidERC1271SignatureNowCalldata(from, digest, signature)) return from;
        if (status != KeyDelegation.Status.Absent) _refuseDelegate(request, recovered, status);
        if (from.code.length != 0) revert WalletRefusedSignature(from);
        if (problem == ECDSA.RecoverError.InvalidSignatureLength) revert ECDSA.ECDSAInvalidSignatureLength(uint256(detail));
        if (problem == ECDSA.RecoverError.InvalidSignatureS) revert ECDSA.ECDSAInvalidSignatureS(detail);
        if (problem == ECDSA.RecoverError.InvalidSignature) revert ECDSA.ECDSAInvalidSignature();
        revert SignerMismatch(from, recovered);
    }

    function _refuseDelegate(Request calldata request, address signer, KeyDelegation.Status status) private view {
        address from = request.from;
        if (status == KeyDelegation.Status.Revoked) revert DelegationRevoked(from, signer);
        if (status == KeyDelegation.Status.Expired) {
            revert DelegationExpired(from, signer, DELEGATIONS.delegationOf(from, signer).until, block.timestamp);
        }
        if (request.data.length < 4) revert FunctionMissing(from, signer, request.data.length);
        revert OutsideDelegation(from, signer, request.to, bytes4(request.data));
    }
}
