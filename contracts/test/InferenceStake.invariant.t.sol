// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {InferenceRegistry} from "../src/InferenceRegistry.sol";
import {InferenceStakeWorld} from "./InferenceStake.t.sol";
import {vm} from "./Vm.sol";

/// @dev Two operators commit batches under changing terms; three challengers, an arbiter and time do what they like with them. Beside it the
/// handler keeps the plain story: what everybody is owed, and what is bound to which batch.
contract InferenceStakeHandler is InferenceStakeWorld {
    struct Told {
        bytes32 id;
        address operator;
        uint64 sequence;
        uint96 bond;
        uint256 until;
        InferenceRegistry.Status status;
        uint256 open;
    }

    struct Dispute {
        uint256 batch;
        address challenger;
        InferenceRegistry.Outcome outcome;
        uint256 deadline;
    }

    address private immutable TEST;
    Told[] private told;
    Dispute[] private disputes;
    mapping(address operator => uint96) private bondOf;
    mapping(address operator => uint256) private staked;
    mapping(address operator => uint256) private bound;
    mapping(address account => uint256) private owed;
    uint256 private against;
    uint256 private burnt;

    mapping(bytes32 call => uint256) public succeeded;
    uint256 public attempts;
    uint256 public accepted;

    constructor() {
        TEST = msg.sender;
        _found();
        for (uint256 i = 0; i < 5; ++i) {
            _fund(party(i), credit.MAX_MINT());
        }
    }

    function deposit(uint8 who, uint64 amount) external {
        address operator = party(who % 2);
        _acts(operator);
        try registry.deposit(address(credit), amount, _noPermit()) {
            assert(amount != 0);
            staked[operator] += amount;
            _count("deposit");
        } catch {
            assert(amount == 0);
        }
    }

    function unstake(uint8 who, uint64 amount) external {
        address operator = party(who % 2);
        uint256 free = staked[operator] - bound[operator];
        if (who % 4 < 3 && free != 0) amount = uint64(1 + amount % free);
        _acts(operator);
        try registry.unstake(address(credit), amount) {
            assert(amount != 0 && amount <= free);
            staked[operator] -= amount;
            owed[operator] += amount;
            _count("unstake");
        } catch {
            assert(amount == 0 || amount > free);
        }
    }

    function setTerms(uint8 who, uint32 bond, uint8 stale) external {
        address operator = party(who % 2);
        uint16 present = registry.termsCount(operator);
        uint16 version = stale % 8 == 1 && present > 0 ? present - 1 : present;
        if (stale % 4 == 2) bond = 0;
        _acts(operator);
        try registry.setTerms(_terms(bond), version) {
            assert(version == present);
            bondOf[operator] = bond;
            _count("setTerms");
        } catch {
            assert(version != present);
        }
    }

    function commit(uint8 who) external {
        address operator = party(who % 2);
        uint96 bond = bondOf[operator];
        uint64 sequence = uint64(told.length + 1);
        bool covered = bond <= staked[operator] - bound[operator];
        ++attempts;
        try this.commitAs(operator, sequence) returns (bytes32 id) {
            assert(covered);
            uint256 until = block.timestamp + registry.CHALLENGE_TIME();
            told.push(Told(id, operator, sequence, bond, until, InferenceRegistry.Status.Pending, 0));
            bound[operator] += bond;
            _count("commit");
        } catch {
            assert(!covered);
        }
    }

    function challenge(uint16 which, uint8 who) external {
        if (told.length == 0) return;
        Told storage batch = _staked(which);
        address challenger = party(2 + who % 3);
        bool known = registry.challengeOf(batch.id, 0, challenger).outcome != InferenceRegistry.Outcome.Absent;
        bool fits = batch.bond != 0 && batch.status == InferenceRegistry.Status.Pending && block.timestamp <= batch.until;
        ++attempts;
        try this.challengeAs(challenger, batch.id, batch.sequence) {
            assert(fits && !known);
            ++batch.open;
            against += batch.bond;
            disputes.push(
                Dispute(
                    batch.sequence - 1, challenger, InferenceRegistry.Outcome.Open, block.timestamp + registry.ANSWER_TIME()
                )
            );
            _count("challenge");
        } catch {
            assert(!fits || known);
        }
    }

    function answer(uint16 which) external {
        if (disputes.length == 0) return;
        Dispute storage dispute = disputes[which % disputes.length];
        Told storage batch = told[dispute.batch];
        bool fits = batch.status == InferenceRegistry.Status.Pending && dispute.outcome == InferenceRegistry.Outcome.Open
            && block.timestamp <= dispute.deadline;
        _acts(batch.operator);
        try registry.answerChallenge(batch.id, 0, dispute.challenger, keccak256("answer")) {
            assert(fits);
            dispute.outcome = InferenceRegistry.Outcome.Answered;
            dispute.deadline = block.timestamp + registry.RULING_TIME();
            _count("answer");
        } catch {
            assert(!fits);
        }
    }

    function rule(uint16 which, bool upheld) external {
        if (disputes.length == 0) return;
        Dispute storage dispute = disputes[which % disputes.length];
        Told storage batch = told[dispute.batch];
        bool fits = batch.status == InferenceRegistry.Status.Pending && dispute.outcome == InferenceRegistry.Outcome.Answered
            && block.timestamp <= dispute.deadline;
        _acts(ARBITER);
        try registry.rule(batch.id, 0, dispute.challenger, upheld, keccak256("reason")) {
            assert(fits);
            if (upheld) _upheld(dispute, batch);
            else _closed(dispute, batch, InferenceRegistry.Outcome.Dismissed, batch.operator, batch.bond);
            _count("rule");
        } catch {
            assert(!fits);
        }
    }

    function settle(uint16 which) external {
        if (disputes.length == 0) return;
        _settle(disputes[which % disputes.length]);
    }

    function finalise(uint16 which) external {
        if (told.length == 0) return;
        // Something whose time is over, most times.
        uint256 place = which % told.length;
        for (uint256 i = 0; which % 4 != 0 && i < told.length && !_isOver(told[place]); ++i) {
            place = (place + 1) % told.length;
        }
        _finalise(told[place]);
    }

    function withdraw(uint8 who) external {
        _withdraw(party(who % 5));
    }

    function wait_(uint32 time) external {
        vm.warp(block.timestamp + time % 4 days);
    }

    function commitAs(address operator, uint64 sequence) external returns (bytes32) {
        return _commit(operator, sequence);
    }

    function challengeAs(address challenger, bytes32 id, uint64 sequence) external {
        _challenge(challenger, id, sequence);
    }

    /// @dev After all deadlines anybody brings everything to an end, and everybody has what is his.
    function end() external {
        if (msg.sender != TEST) return;
        vm.warp(block.timestamp + 365 days);
        for (uint256 i = 0; i < disputes.length; ++i) {
            _settle(disputes[i]);
            assert(disputes[i].outcome > InferenceRegistry.Outcome.Answered);
        }
        for (uint256 i = 0; i < told.length; ++i) {
            _finalise(told[i]);
            assert(told[i].status >= InferenceRegistry.Status.Final && told[i].open == 0);
        }
        for (uint256 i = 0; i < 5; ++i) {
            address who = party(i);
            assert(bound[who] == 0);
            if (staked[who] != 0) {
                vm.prank(who);
                registry.unstake(address(credit), uint128(staked[who]));
                owed[who] += staked[who];
                staked[who] = 0;
            }
            _withdraw(who);
        }
        assert(credit.balanceOf(address(registry)) == burnt && _creditOf(registry.BURNT()) == burnt);
    }

    function check() external view {
        uint256 sum = against + burnt;
        for (uint256 i = 0; i < 5; ++i) {
            address who = party(i);
            InferenceRegistry.Stake memory stake = registry.stakeOf(who, address(credit));
            assert(stake.total == staked[who] && stake.locked == bound[who] && stake.locked <= stake.total);
            assert(_creditOf(who) == owed[who]);
            sum += staked[who] + owed[who];
        }
        assert(credit.balanceOf(address(registry)) == sum);
        for (uint256 i = 0; i < told.length; ++i) {
            InferenceRegistry.Batch memory batch = registry.get(told[i].id);
            assert(batch.status == told[i].status && batch.open == told[i].open && batch.operator == told[i].operator);
        }
        for (uint256 i = 0; i < disputes.length; ++i) {
            assert(registry.challengeOf(told[disputes[i].batch].id, 0, disputes[i].challenger).outcome == disputes[i].outcome);
        }
    }

    function party(uint256 which) public pure returns (address) {
        return address(uint160(0x1000 + which));
    }

    function _settle(Dispute storage dispute) private {
        Told storage batch = told[dispute.batch];
        bool open = dispute.outcome == InferenceRegistry.Outcome.Open || dispute.outcome == InferenceRegistry.Outcome.Answered;
        bool rejected = batch.status == InferenceRegistry.Status.Rejected;
        bool fits = open && (rejected || block.timestamp > dispute.deadline);
        ++attempts;
        try registry.settle(batch.id, 0, dispute.challenger) {
            assert(fits);
            if (!rejected && dispute.outcome == InferenceRegistry.Outcome.Open) {
                _upheld(dispute, batch);
            } else {
                InferenceRegistry.Outcome outcome =
                    rejected ? InferenceRegistry.Outcome.Moot : InferenceRegistry.Outcome.Undecided;
                _closed(dispute, batch, outcome, dispute.challenger, batch.bond);
            }
            _count("settle");
        } catch {
            assert(!fits);
        }
    }

    function _finalise(Told storage batch) private {
        bool fits = _isOver(batch);
        ++attempts;
        try registry.finalise(batch.id) {
            assert(fits);
            batch.status = InferenceRegistry.Status.Final;
            bound[batch.operator] -= batch.bond;
            _count("finalise");
        } catch {
            assert(!fits);
        }
    }

    function _isOver(Told storage batch) private view returns (bool) {
        return batch.status == InferenceRegistry.Status.Pending && batch.open == 0 && block.timestamp > batch.until;
    }

    function _withdraw(address who) private {
        uint256 had = credit.balanceOf(who);
        _acts(who);
        try registry.withdraw(address(credit), who) {
            assert(owed[who] != 0 && credit.balanceOf(who) == had + owed[who]);
            owed[who] = 0;
            _count("withdraw");
        } catch {
            assert(owed[who] == 0);
        }
    }

    function _upheld(Dispute storage dispute, Told storage batch) private {
        batch.status = InferenceRegistry.Status.Rejected;
        staked[batch.operator] -= batch.bond;
        bound[batch.operator] -= batch.bond;
        owed[dispute.challenger] += batch.bond / 2;
        burnt += batch.bond - batch.bond / 2;
        _closed(dispute, batch, InferenceRegistry.Outcome.Upheld, dispute.challenger, batch.bond);
    }

    function _closed(Dispute storage dispute, Told storage batch, InferenceRegistry.Outcome outcome, address to, uint256 bond)
        private
    {
        dispute.outcome = outcome;
        --batch.open;
        against -= bond;
        owed[to] += bond;
    }

    /// @dev A batch with a bond three times of four, or most challenges would meet nothing staked.
    function _staked(uint16 which) private view returns (Told storage batch) {
        uint256 place = which % told.length;
        for (uint256 i = 0; which % 4 != 0 && i < told.length; ++i) {
            if (
                told[place].bond != 0 && told[place].status == InferenceRegistry.Status.Pending
                    && block.timestamp <= told[place].until
            ) {
                break;
            }
            place = (place + 1) % told.length;
        }
        return told[place];
    }

    function _acts(address who) private {
        ++attempts;
        vm.prank(who);
    }

    function _count(bytes32 call) private {
        ++accepted;
        ++succeeded[call];
    }
}

contract InferenceStakeInvariantTest {
    InferenceStakeHandler private handler;

    function setUp() public {
        handler = new InferenceStakeHandler();
        // The story begins with something at stake.
        for (uint8 who = 0; who < 2; ++who) {
            handler.deposit(who, 1e18);
            handler.setTerms(who, 1e6, 0);
            handler.commit(who);
        }
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_everybody_is_owed_what_the_story_says_and_it_is_there() public view {
        handler.check();
    }

    /// @dev Forge undoes what this does.
    function afterInvariant() public {
        assert(handler.attempts() < 48 || handler.accepted() * 5 >= handler.attempts());
        assert(handler.attempts() < 48 || (handler.succeeded("challenge") > 0 && handler.succeeded("commit") > 2));
        handler.end();
        handler.check();
    }
}
