// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC2771Context} from "@openzeppelin/contracts/metatx/ERC2771Context.sol";

/// @dev A target that remembers who called it, fails on demand, and tries to come back into its forwarder.
contract ForwardedTarget is ERC2771Context {
    error Refused(uint256 reason);

    address public lastSender;
    uint256 public calls;

    constructor(address forwarder) ERC2771Context(forwarder) {}

    function note() external returns (address sender) {
        sender = _msgSender();
        lastSender = sender;
        ++calls;
    }

    function gasGiven() external view returns (uint256) {
        return gasleft();
    }

    function refuse(uint256 reason) external pure {
        revert Refused(reason);
    }

    function refuseSilently() external pure {
        assembly {
            revert(0, 0)
        }
    }

    function reenter(bytes calldata call) external {
        ++calls;
        (bool success, bytes memory returned) = msg.sender.call(call);
        if (!success) {
            assembly {
                revert(add(returned, 32), mload(returned))
            }
        }
    }
}
