// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {AccessManager} from "../src/AccessManager.sol";
import {ComputeJobs} from "../src/ComputeJobs.sol";
import {Escrow} from "../src/Escrow.sol";
import {PaymentTokens} from "../src/PaymentTokens.sol";
import {vm} from "./Vm.sol";

/// @dev A token whose whole supply is the consumer's.
contract SymbolicMoney is ERC20("Money", "MONEY") {
    constructor(address to) {
        _mint(to, type(uint96).max);
    }
}

/// @dev Registry and access manager in one, with a single data set that everybody may use, and with any royalty, also a foolish one.
contract SymbolicDataset {
    address private _receiver;
    uint256 private _royalty;

    // The names are those of the contracts that this stands for.
    // forge-lint: disable-next-line(mixed-case-function)
    function REGISTRY() external view returns (address) {
        return address(this);
    }

    function setRoyalty(address receiver, uint256 royalty) external {
        (_receiver, _royalty) = (receiver, royalty);
    }

    function royaltyInfo(uint256, uint256) external view returns (address, uint256) {
        return (_receiver, _royalty);
    }

    function hasAccess(uint256, address, uint16) external pure returns (bool) {
        return true;
    }

    function isOnCommittee(uint256, address) external pure returns (bool) {
        return true;
    }

    function ownerEpoch(uint256) external pure returns (uint64) {
        return 0;
    }

    function ownerOf(uint256) external pure returns (address) {
        return address(0x9D);
    }
}

/// @dev Proved by halmos for every value, not for some (`make audit`); forge leaves these functions alone.
contract EscrowSymbolicTest {
    address private constant HEIR = address(0xA11CE);
    address private constant CONSUMER = address(0xC0);
    address private constant PROVIDER = address(0x9D);
    address private constant ARBITER = address(0xAB);
    bytes32 private constant ALGORITHM = bytes32("algorithm");

    SymbolicMoney private money;
    SymbolicDataset private dataset;
    ComputeJobs private jobs;

    function setUp() public {
        vm.warp(1_800_000_000);
        PaymentTokens tokens = new PaymentTokens(address(this));
        money = new SymbolicMoney(CONSUMER);
        tokens.setAccepted(address(money), true);
        dataset = new SymbolicDataset();
        jobs = new ComputeJobs(address(0xF0), AccessManager(address(dataset)), tokens, address(this));
        jobs.trustAlgorithm(1, ALGORITHM, 0);
        vm.prank(CONSUMER);
        money.approve(address(jobs), type(uint256).max);
    }

    /// @dev For every price and every royalty: the credits sum to the price, and the escrow holds exactly them. (The product of a price and an
    /// arbiter's share is beyond the solver; `testFuzz_an_arbiter_divides_the_price…` tries that.)
    function check_the_credits_of_a_released_job_sum_to_its_price(uint96 price, bool inherited, uint256 royalty, bool byTime)
        public
    {
        dataset.setRoyalty(inherited ? HEIR : address(0), royalty);
        bytes32 id = _committed(price);
        if (byTime) vm.warp(block.timestamp + 1 days + 1);
        vm.prank(CONSUMER);
        if (byTime) jobs.timeout(id);
        else jobs.release(id);
        _settled(price);
        assert(_creditOf(CONSUMER) == 0 && (inherited || _creditOf(HEIR) == 0));
    }

    /// @dev Any two steps by anybody at any times, after a result was committed or disputed: they pay nothing before the end, and the price
    /// at it.
    function check_no_settlement_pays_twice(
        bool disputed,
        uint8[2] calldata acts,
        address[2] calldata callers,
        uint32[2] calldata waits
    ) public {
        bytes32 id = _begun(1_000, disputed ? 3 : 2);
        dataset.setRoyalty(HEIR, 25);
        for (uint256 i = 0; i < 2; ++i) {
            vm.warp(block.timestamp + waits[i]);
            vm.prank(callers[i]);
            _attempt(_settlement(acts[i], id));
        }
        _paidOnce(id);
    }

    /// @dev The same before a result is committed.
    function check_no_refund_is_given_twice(
        bool accepted,
        uint8[2] calldata acts,
        address[2] calldata callers,
        uint32[2] calldata waits
    ) public {
        bytes32 id = _begun(1_000, accepted ? 1 : 0);
        for (uint256 i = 0; i < 2; ++i) {
            vm.warp(block.timestamp + waits[i]);
            vm.prank(callers[i]);
            _attempt(_refund(acts[i], id));
        }
        _paidOnce(id);
    }

    function _settlement(uint8 act, bytes32 id) private pure returns (bytes memory) {
        if (act == 0) return abi.encodeCall(ComputeJobs.release, (id));
        if (act == 1) return abi.encodeCall(ComputeJobs.dispute, (id, bytes32("reason")));
        if (act == 2) return abi.encodeCall(ComputeJobs.resolve, (id, 4_000));
        if (act == 3) return abi.encodeCall(ComputeJobs.timeout, (id));
        return abi.encodeCall(ComputeJobs.abandon, (id));
    }

    function _refund(uint8 act, bytes32 id) private pure returns (bytes memory) {
        if (act == 0) return abi.encodeCall(ComputeJobs.cancel, (id));
        if (act == 1) return abi.encodeCall(ComputeJobs.decline, (id));
        if (act == 2) return abi.encodeCall(ComputeJobs.abandon, (id));
        if (act == 3) return abi.encodeCall(ComputeJobs.timeout, (id));
        return abi.encodeCall(ComputeJobs.accept, (id));
    }

    /// @dev Refused or not: what counts is what is owed afterwards.
    function _attempt(bytes memory call) private {
        (bool success,) = address(jobs).call(call);
        success;
    }

    function _paidOnce(bytes32 id) private view {
        uint256 owed = _creditOf(CONSUMER) + _creditOf(PROVIDER) + _creditOf(HEIR);
        assert(owed == (jobs.statusOf(id) > ComputeJobs.Status.Disputed ? 1_000 : 0));
        assert(money.balanceOf(address(jobs)) == 1_000);
    }

    function _committed(uint96 price) private returns (bytes32) {
        return _begun(price, 2);
    }

    /// @dev A job that is requested, accepted, committed or, for any other state, disputed.
    function _begun(uint96 price, uint8 state) private returns (bytes32 id) {
        ComputeJobs.Terms memory terms = ComputeJobs.Terms(
            1,
            42,
            PROVIDER,
            ARBITER,
            ALGORITHM,
            bytes32("document"),
            price == 0 ? address(0) : address(money),
            price,
            uint48(block.timestamp + 1 days),
            1 days,
            1 days
        );
        vm.prank(CONSUMER);
        id = jobs.request(terms, Escrow.Permit(0, 0, 0, 0));
        if (state == 0) return id;
        vm.prank(PROVIDER);
        jobs.accept(id);
        if (state == 1) return id;
        vm.prank(PROVIDER);
        jobs.commitResult(id, bytes32("result"), 0, 0);
        if (state == 2) return id;
        vm.prank(CONSUMER);
        jobs.dispute(id, bytes32("reason"));
    }

    function _settled(uint96 price) private view {
        assert(_creditOf(CONSUMER) + _creditOf(PROVIDER) + _creditOf(HEIR) == price);
        assert(money.balanceOf(address(jobs)) == price);
    }

    function _creditOf(address account) private view returns (uint256) {
        return jobs.creditOf(address(money), account);
    }
}
