// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {FederationRegistry} from "../src/FederationRegistry.sol";
import {LocalCredit} from "../src/LocalCredit.sol";
import {PaymentTokens} from "../src/PaymentTokens.sol";
import {RewardDistributor} from "../src/RewardDistributor.sol";
import {RewardTree} from "./RewardTree.sol";
import {TrainedFederation} from "./TrainedFederation.sol";
import {vm} from "./Vm.sol";

/// @dev Epochs of one federation after another are funded, published, fought over, claimed and closed at random. Beside it the handler
/// keeps the plain story, from which it knows what must be accepted and what must not, and who must own how much.
contract RewardHandler {
    struct Story {
        bytes32 epoch;
        bytes32 federation;
        uint64 round;
        RewardDistributor.Status status;
        uint32 number;
        uint256 amount;
        uint256 total;
        uint256 claimed;
        uint256 taken;
        uint256 publishBy;
        uint256 challengeUntil;
        uint256 claimFrom;
        uint256 claimUntil;
    }

    uint256 private constant SHARES = 5;
    address private constant FUNDER = address(0xF00D);
    address private constant PUBLISHER = address(0x9B);
    address private constant ARBITER = address(0xA4B);

    TrainedFederation public immutable TRAINING = new TrainedFederation();
    RewardDistributor public immutable DISTRIBUTOR;
    LocalCredit public immutable TOKEN = new LocalCredit();

    Story[] private stories;
    Story private nothing;
    bytes32 private federation;
    mapping(bytes32 publication => mapping(address who => bool)) private objected;
    uint256 public promised;
    uint256 public credited;
    uint256 public funded;
    uint256 public published;
    uint256 public decided;
    uint256 public claims;
    uint256 public exits;
    uint256 public attempts;
    uint256 public accepted;

    modifier counted() {
        ++attempts;
        _;
    }

    constructor() {
        PaymentTokens tokens = new PaymentTokens(address(this));
        DISTRIBUTOR = new RewardDistributor(address(0xF0), TRAINING.REGISTRY(), tokens);
        tokens.setAccepted(address(TOKEN), true);
        federation = TRAINING.found();
        vm.prank(FUNDER);
        TOKEN.approve(address(DISTRIBUTOR), type(uint256).max);
    }

    /// @dev For the present round or one of the next three, also when that one has opened already.
    function fund(uint16 amount, uint8 ahead) external counted {
        FederationRegistry.Federation memory current = TRAINING.REGISTRY().get(federation);
        bool opened = current.status != FederationRegistry.Status.Idle;
        Story memory story;
        story.round = current.round + ahead % 3;
        story.amount = 1 + uint256(amount);
        story.publishBy = block.timestamp + 20 days;
        bool valid = !opened || story.round > current.round;
        TOKEN.mint(FUNDER, story.amount);
        RewardDistributor.Permit memory permit;
        vm.prank(FUNDER);
        try DISTRIBUTOR.fund(
            RewardDistributor.Terms({
                federation: federation,
                firstRound: story.round,
                lastRound: story.round,
                label: bytes32(attempts),
                token: address(TOKEN),
                amount: story.amount,
                publisher: PUBLISHER,
                arbiter: ARBITER,
                publishBy: uint48(story.publishBy),
                challengeSeconds: 1 days,
                answerSeconds: 2 days,
                claimSeconds: 10 days
            }),
            permit
        ) returns (
            bytes32 epoch
        ) {
            assert(valid);
            (story.epoch, story.federation, story.status) = (epoch, federation, RewardDistributor.Status.Funded);
            stories.push(story);
            promised += story.amount;
            ++funded;
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    /// @dev One step of the present federation's training; at times its end, and another begins.
    function train(uint8 step) external {
        FederationRegistry.Status status = TRAINING.REGISTRY().get(federation).status;
        if (status == FederationRegistry.Status.Open) {
            if (block.timestamp <= TRAINING.REGISTRY().get(federation).commitUntil) return TRAINING.fix(federation);
            vm.warp(TRAINING.REGISTRY().get(federation).deadline + 1);
            return TRAINING.abandon(federation);
        }
        if (status == FederationRegistry.Status.Fixed) return TRAINING.finalise(federation);
        if (step % 16 != 0) return TRAINING.open(federation);
        TRAINING.close(federation);
        federation = TRAINING.found();
    }

    function publish(uint8 which, uint16 total, uint8 wrong) external {
        (Story storage story, bool found) = _story(which);
        if (!found) return;
        uint256 given = wrong % 8 == 1 ? story.amount + 1 + total : 1 + uint256(total) % story.amount;
        uint32 number = wrong % 8 == 2 ? story.number : story.number + 1;
        bool valid = story.status == RewardDistributor.Status.Funded && block.timestamp <= story.publishBy;
        valid = valid && TRAINING.REGISTRY().get(story.federation).round > story.round && wrong % 8 != 1 && wrong % 8 != 2;
        if (_leftOut(valid, total)) return;
        bytes32 record = _record(story);
        vm.prank(PUBLISHER);
        try DISTRIBUTOR.publish(story.epoch, number, record, uint32(SHARES), given, "") {
            assert(valid);
            story.status = RewardDistributor.Status.Published;
            story.number = number;
            story.total = given;
            story.challengeUntil = block.timestamp + 1 days;
            _claimFrom(story, story.challengeUntil + 1);
            ++published;
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    function challenge(uint8 which, uint8 who) external {
        (Story storage story, bool found) = _story(which);
        if (!found) return;
        // The one after the last participant has no stake.
        address caller = who % 5 == 4 ? FUNDER : address(uint160(0x1000 + who % 5));
        bytes32 publication = keccak256(abi.encode(story.epoch, story.number));
        bool valid = story.status == RewardDistributor.Status.Published || story.status == RewardDistributor.Status.Challenged;
        valid = valid && block.timestamp <= story.challengeUntil && who % 5 != 3 && !objected[publication][caller];
        if (_leftOut(valid, who)) return;
        vm.prank(caller);
        try DISTRIBUTOR.challenge(story.epoch, story.number, keccak256("reason")) {
            assert(valid);
            objected[publication][caller] = true;
            story.status = RewardDistributor.Status.Challenged;
            _claimFrom(story, story.challengeUntil + 2 days + 1);
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    function decide(uint8 which, bool up, uint8 stranger) external {
        (Story storage story, bool found) = _story(which);
        if (!found || story.status != RewardDistributor.Status.Challenged) return;
        bool valid = stranger % 8 != 1 && block.timestamp < story.claimFrom;
        valid = valid && (!up || block.timestamp > story.challengeUntil);
        if (_leftOut(valid, stranger)) return;
        bytes32 reason = keccak256("decision");
        vm.prank(stranger % 8 == 1 ? FUNDER : ARBITER);
        (bool success,) = address(DISTRIBUTOR)
            .call(
                up
                    ? abi.encodeCall(RewardDistributor.confirm, (story.epoch, story.number, reason))
                    : abi.encodeCall(RewardDistributor.reject, (story.epoch, story.number, reason))
            );
        assert(success == valid);
        if (!success) return;
        story.status = up ? RewardDistributor.Status.Confirmed : RewardDistributor.Status.Funded;
        if (up) _claimFrom(story, block.timestamp);
        ++decided;
        ++accepted;
    }

    function claim(uint8 which, uint8 index) external {
        (Story storage story, bool found) = _story(which);
        if (!found) return;
        index = index % uint8(SHARES);
        uint256 amount = story.amount * index / 8;
        bool valid = story.status >= RewardDistributor.Status.Published && story.status <= RewardDistributor.Status.Confirmed;
        valid = valid && block.timestamp >= story.claimFrom && block.timestamp <= story.claimUntil;
        valid = valid && story.taken >> index & 1 == 0 && story.claimed + amount <= story.total;
        if (_leftOut(valid, which)) return;
        (bool success,) = address(DISTRIBUTOR).call(_claimCall(story, index));
        assert(success == valid);
        if (!success) return;
        story.taken |= 1 << index;
        story.claimed += amount;
        promised -= amount;
        credited += amount;
        ++claims;
        ++accepted;
    }

    function close(uint8 which) external {
        (Story storage story, bool found) = _story(which);
        if (!found || _leftOut(_isOver(story), which)) return;
        _close(story);
    }

    function withdraw(uint8 who) external {
        address account = who % 4 == 3 ? FUNDER : address(uint160(0x1000 + who % 4));
        uint256 credit = DISTRIBUTOR.creditOf(address(TOKEN), account);
        uint256 before = TOKEN.balanceOf(account);
        if (_leftOut(credit > 0, who)) return;
        vm.prank(account);
        try DISTRIBUTOR.withdraw(address(TOKEN), account) {
            assert(credit > 0 && TOKEN.balanceOf(account) == before + credit);
            credited -= credit;
            ++accepted;
        } catch {
            assert(credit == 0);
        }
    }

    function wait_(uint24 time) external {
        vm.warp(block.timestamp + time % 2 days);
    }

    /// @dev However an epoch stands, time alone brings it to its end.
    function exit(uint8 which, uint8 seldom) external {
        (Story storage story, bool found) = _story(which);
        if (!found || seldom % 16 != 0 || story.status == RewardDistributor.Status.Closed) return;
        uint256 until = story.status == RewardDistributor.Status.Funded ? story.publishBy : story.claimUntil;
        if (block.timestamp <= until) vm.warp(until + 1);
        _close(story);
        assert(story.status == RewardDistributor.Status.Closed);
        ++exits;
    }

    /// @dev The whole of an epoch, so that every sequence sees some.
    function run(uint16 amount, uint8 fought) external {
        while (TRAINING.REGISTRY().get(federation).status != FederationRegistry.Status.Idle) {
            this.train(1);
        }
        this.fund(amount, 0);
        for (uint256 i = 0; i < 3; ++i) {
            this.train(1);
        }
        uint8 last = uint8(stories.length - 1);
        this.publish(last, type(uint16).max, 0);
        if (fought % 2 == 0) this.challenge(last, 0);
        this.wait_(uint24(1 days + 1));
        if (fought % 4 == 0) this.decide(last, true, 0);
        if (fought % 4 == 2) this.wait_(uint24(2 days - 1));
        this.wait_(1);
        this.claim(last, fought);
    }

    function count() external view returns (uint256) {
        return stories.length;
    }

    function storyAt(uint256 index) external view returns (Story memory) {
        return stories[index];
    }

    /// @dev Five shares of three accounts; they may sum to more than the total.
    function shares(uint256 amount) public pure returns (address[] memory accounts, uint256[] memory amounts) {
        (accounts, amounts) = (new address[](SHARES), new uint256[](SHARES));
        for (uint256 i = 0; i < SHARES; ++i) {
            accounts[i] = address(uint160(0x1000 + i % 3));
            amounts[i] = amount * i / 8;
        }
    }

    /// @dev Most calls are late, early or not theirs who make them: three of four that must be refused are left out.
    function _leftOut(bool valid, uint256 dice) private returns (bool out) {
        out = !valid && uint256(keccak256(abi.encode(dice, block.timestamp, attempts))) % 4 != 0;
        if (!out) ++attempts;
    }

    function _isOver(Story storage story) private view returns (bool) {
        if (story.status == RewardDistributor.Status.Closed) return false;
        if (story.status != RewardDistributor.Status.Funded) return block.timestamp > story.claimUntil;
        FederationRegistry.Federation memory trained = TRAINING.REGISTRY().get(story.federation);
        return block.timestamp > story.publishBy
            || (trained.status == FederationRegistry.Status.Closed && trained.round <= story.round);
    }

    function _close(Story storage story) private {
        bool valid = _isOver(story);
        try DISTRIBUTOR.close(story.epoch) {
            assert(valid);
            story.status = RewardDistributor.Status.Closed;
            promised -= story.amount - story.claimed;
            credited += story.amount - story.claimed;
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    function _record(Story storage story) private view returns (bytes32) {
        (address[] memory accounts, uint256[] memory amounts) = shares(story.amount);
        return RewardTree.recordOf(DISTRIBUTOR.contextOf(story.epoch), accounts, amounts);
    }

    function _claimCall(Story storage story, uint32 index) private view returns (bytes memory) {
        (address[] memory accounts, uint256[] memory amounts) = shares(story.amount);
        bytes32[] memory proof = RewardTree.proofOf(DISTRIBUTOR.contextOf(story.epoch), accounts, amounts, index);
        bytes16 salt = RewardTree.saltOf(index);
        return abi.encodeCall(RewardDistributor.claim, (story.epoch, index, accounts[index], amounts[index], salt, proof));
    }

    function _claimFrom(Story storage story, uint256 from) private {
        (story.claimFrom, story.claimUntil) = (from, from + 10 days);
    }

    /// @dev Mostly one of the latest three; nothing before the first.
    function _story(uint8 which) private view returns (Story storage story, bool found) {
        uint256 n = stories.length;
        if (n == 0) return (nothing, false);
        return (stories[n - 1 - which % (n < 3 ? n : 3)], true);
    }
}

/// forge-config: default.invariant.fail-on-revert = true
contract RewardDistributorInvariantTest {
    RewardHandler private handler;

    function setUp() public {
        vm.warp(1_800_000_000);
        handler = new RewardHandler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_what_is_promised_and_credited_is_what_is_held() public view {
        RewardDistributor distributor = handler.DISTRIBUTOR();
        address token = address(handler.TOKEN());
        uint256 open = 0;
        for (uint256 i = 0; i < handler.count(); ++i) {
            RewardDistributor.Epoch memory epoch = distributor.get(handler.storyAt(i).epoch);
            if (epoch.status != RewardDistributor.Status.Closed) open += epoch.terms.amount - epoch.claimed;
        }
        uint256 credits = distributor.creditOf(token, address(0xF00D));
        for (uint256 i = 0; i < 3; ++i) {
            credits += distributor.creditOf(token, address(uint160(0x1000 + i)));
        }
        assert(open == handler.promised() && credits == handler.credited());
        assert(handler.TOKEN().balanceOf(address(distributor)) == open + credits);
    }

    function invariant_an_epoch_is_what_was_accepted_of_it() public view {
        RewardDistributor distributor = handler.DISTRIBUTOR();
        for (uint256 i = 0; i < handler.count(); ++i) {
            RewardHandler.Story memory story = handler.storyAt(i);
            RewardDistributor.Epoch memory epoch = distributor.get(story.epoch);
            assert(epoch.status == story.status && epoch.number == story.number && epoch.claimed == story.claimed);
            assert(epoch.claimed <= epoch.total && epoch.total <= epoch.terms.amount);
            for (uint32 index = 0; index < 5; ++index) {
                assert(distributor.isClaimed(story.epoch, index) == (story.taken >> index & 1 == 1));
            }
        }
    }

    /// @dev A handler whose calls were mostly refused, or in which nobody was ever paid, would prove little. (Replays of an old failure
    /// are short.)
    function afterInvariant() public view {
        assert(handler.attempts() < 32 || handler.accepted() * 4 >= handler.attempts());
        assert(handler.attempts() < 64 || (handler.funded() > 0 && handler.published() > 0 && handler.claims() > 0));
    }
}
