// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @dev The face of a token with permit from before ERC-5267: its domain must be guessed from name and version.
contract PlainPermitToken {
    string public name;
    string public version;
    bytes32 public immutable DOMAIN_SEPARATOR;
    mapping(address owner => uint256) public nonces;

    constructor(string memory name_, string memory told, string memory signed) {
        (name, version) = (name_, told);
        DOMAIN_SEPARATOR = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256(bytes(name_)),
                keccak256(bytes(signed)),
                block.chainid,
                address(this)
            )
        );
    }
}
