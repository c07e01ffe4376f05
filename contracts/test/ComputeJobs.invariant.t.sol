// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessManager} from "../src/AccessManager.sol";
import {ComputeJobs} from "../src/ComputeJobs.sol";
import {DatasetRegistry} from "../src/DatasetRegistry.sol";
import {Escrow} from "../src/Escrow.sol";
import {LocalCredit} from "../src/LocalCredit.sol";
import {ComputeJobsWorld} from "./ComputeJobsWorld.sol";
import {vm} from "./Vm.sol";

/// @dev Three consumers, three providers, two arbiters and two owners act at random on jobs in two tokens, while the data set is sold, its
/// policy changes, trust comes and goes, tokens leave the list and everything is paused. Beside it the handler keeps the plain story, from
/// which it knows what must be accepted and what must not, and what everybody is owed.
contract ComputeJobsHandler is ComputeJobsWorld {
    struct Told {
        bytes32 id;
        ComputeJobs.Status status;
        address consumer;
        address provider;
        address arbiter;
        uint256 token;
        uint96 price;
        uint256 deadline;
        uint256 runSeconds;
        uint256 reviewSeconds;
    }

    uint256 public constant ACCOUNTS = 10;
    uint256 public constant TOKENS = 2;

    LocalCredit[2] private money;
    Told[] private told;
    mapping(uint256 token => mapping(address account => uint256)) public owed;
    mapping(uint256 token => uint256) public open;
    mapping(Act act => uint256) public succeeded;
    uint256 public requested;
    uint256 public withdrawn;
    uint256 public attempts;
    uint256 public accepted;

    address private owner;
    bool private algorithmTrusted;
    mapping(address provider => bool) private providerTrusted;
    uint256 private unique;

    constructor() {
        _found(ROYALTY_BPS);
        money = [credit, new LocalCredit()];
        owner = OWNER;
        (algorithmTrusted, providerTrusted[PROVIDER]) = (true, true);
        for (uint256 i = 0; i < 3; ++i) {
            for (uint256 j = 0; j < TOKENS; ++j) {
                money[j].mint(account(i), credit.MAX_MINT());
                vm.prank(account(i));
                money[j].approve(address(jobs), type(uint256).max);
            }
        }
        _tidy();
    }

    function request(uint8 who, uint8 others, uint96 price, uint16 times, uint8 wrong) external {
        ComputeJobs.Terms memory terms = _terms(keccak256(abi.encode("document", ++unique)));
        terms.provider = others % 8 == 7 ? owner : account(3 + others % 3);
        terms.arbiter = account(6 + others % 2);
        terms.price = price % 1e18;
        uint256 token = price % 2;
        terms.token = terms.price == 0 ? address(0) : address(money[token]);
        terms.acceptUntil = uint48(block.timestamp + times);
        terms.runSeconds = 1 + uint32(times);
        terms.reviewSeconds = 1 hours + uint32(times);
        if (wrong % 32 == 1) terms.algorithm = keccak256("another");
        // Consumer 2 is asked for access, but by nobody else.
        _request(account(who % 4), terms, token);
    }

    function act(uint16 job, uint8 kind, uint8 who) external {
        if (told.length == 0) return;
        uint256 which = job % told.length;
        // Something that fits most times, or the states' mismatches would be all there is.
        Act chosen = Act(kind % ACTS);
        if (who % 4 != 0) {
            for (uint256 i = 0; i < ACTS * told.length && !_fits(chosen, told[which]); ++i) {
                if (i % ACTS == 0) which = (which + 1) % told.length;
                chosen = Act((uint256(chosen) + 1) % ACTS);
            }
        }
        _act(which, chosen, who % 16 == 0 ? account(who / 16) : _partyOf(chosen, told[which]));
    }

    function endByTime(uint16 job) external {
        if (told.length == 0) return;
        uint256 which = job % told.length;
        if (!_isOpen(told[which].status)) return;
        if (block.timestamp <= told[which].deadline) vm.warp(told[which].deadline + 1);
        _act(which, Act.TimeOut, ANYBODY);
    }

    function withdraw(uint8 who, uint8 which) external {
        address account_ = account(who);
        uint256 token = which % TOKENS;
        uint256 before = money[token].balanceOf(account_);
        vm.prank(account_);
        try jobs.withdraw(address(money[token]), account_) {
            assert(owed[token][account_] != 0);
            assert(money[token].balanceOf(account_) == before + owed[token][account_]);
            owed[token][account_] = 0;
            ++withdrawn;
        } catch {
            assert(owed[token][account_] == 0);
        }
    }

    function distrust(uint8 who) external {
        vm.prank(owner);
        if (who % 4 == 0) {
            jobs.distrustAlgorithm(1, ALGORITHM);
            algorithmTrusted = false;
        } else {
            jobs.distrustProvider(1, account(3 + who % 3));
            providerTrusted[account(3 + who % 3)] = false;
        }
    }

    function revoke(uint8 who) external {
        vm.prank(owner);
        access.revoke(1, account(who % 3), GRU);
    }

    function sell() external {
        address to = owner == OWNER ? BUYER : OWNER;
        vm.prank(owner);
        registry.transferFrom(owner, to, 1);
        owner = to;
        algorithmTrusted = false;
        for (uint256 i = 3; i < 6; ++i) {
            providerTrusted[account(i)] = false;
        }
    }

    function setPolicy(uint8 seldom) external {
        if (seldom % 4 != 0) return;
        (, uint32 version,) = registry.policyOf(1);
        vm.prank(owner);
        registry.setPolicy(1, keccak256(abi.encode("policy", ++unique)), "", version);
    }

    function pauseOrDelist(uint8 what) external {
        if (what % 4 == 0) jobs.paused() ? jobs.unpause() : jobs.pause();
        if (what % 4 == 1) tokens.setAccepted(address(money[1]), !tokens.isAccepted(address(money[1])));
    }

    function wait_(uint16 time) external {
        vm.warp(block.timestamp + time);
    }

    /// @dev Puts the world in order, for what follows to succeed.
    function tidy() external {
        _tidy();
    }

    /// @dev The whole of a few jobs, one for every way that there is: so every sequence sees each.
    function tell(uint96 price) external {
        _tidy();
        Act[4][6] memory ways = [
            [Act.Decline, Act.TimeOut, Act.TimeOut, Act.TimeOut],
            [Act.Cancel, Act.TimeOut, Act.TimeOut, Act.TimeOut],
            [Act.Accept, Act.Abandon, Act.TimeOut, Act.TimeOut],
            [Act.Accept, Act.Commit, Act.Release, Act.TimeOut],
            [Act.Accept, Act.Commit, Act.Dispute, Act.Resolve],
            [Act.Accept, Act.Commit, Act.Dispute, Act.TimeOut]
        ];
        for (uint256 i = 0; i < ways.length; ++i) {
            ComputeJobs.Terms memory terms = _terms(keccak256(abi.encode("document", ++unique)));
            (terms.provider, terms.arbiter, terms.price) = (account(3 + i % 3), account(6), uint96(1 + price % 1e18));
            _request(account(i % 3), terms, 0);
            for (uint256 j = 0; j < 4 && _isOpen(told[told.length - 1].status); ++j) {
                if (ways[i][j] == Act.TimeOut) vm.warp(told[told.length - 1].deadline + 1);
                _act(told.length - 1, ways[i][j], _partyOf(ways[i][j], told[told.length - 1]));
            }
        }
    }

    /// @dev Everything ends by time and is fetched, in the worst of worlds: paused, no token listed, no access, the data set withdrawn.
    function endEverything() external {
        if (!jobs.paused()) jobs.pause();
        for (uint256 i = 0; i < TOKENS; ++i) {
            tokens.setAccepted(address(money[i]), false);
        }
        vm.prank(owner);
        registry.setState(1, DatasetRegistry.State.Withdrawn);
        for (uint256 i = 0; i < told.length; ++i) {
            if (told[i].deadline >= block.timestamp && _isOpen(told[i].status)) vm.warp(told[i].deadline + 1);
        }
        for (uint256 i = 0; i < told.length; ++i) {
            if (_isOpen(told[i].status)) _act(i, Act.TimeOut, ANYBODY);
            assert(!_isOpen(jobs.statusOf(told[i].id)));
        }
        for (uint256 i = 0; i < TOKENS; ++i) {
            for (uint256 j = 0; j < ACCOUNTS; ++j) {
                if (owed[i][account(j)] != 0) this.withdraw(uint8(j), uint8(i));
            }
        }
    }

    function count() external view returns (uint256) {
        return told.length;
    }

    function jobs_() external view returns (ComputeJobs) {
        return jobs;
    }

    function moneyOf(uint256 which) external view returns (LocalCredit) {
        return money[which];
    }

    function story(uint256 which) external view returns (Told memory) {
        return told[which];
    }

    /// @dev Three consumers, three providers, two arbiters, two owners.
    function account(uint256 which) public pure returns (address) {
        address[10] memory all = [
            CONSUMER, address(0xC1), address(0xC2), PROVIDER, address(0x91), address(0x92), ARBITER, address(0xA1), OWNER, BUYER
        ];
        return all[which % ACCOUNTS];
    }

    function _tidy() private {
        if (jobs.paused()) jobs.unpause();
        for (uint256 i = 0; i < TOKENS; ++i) {
            tokens.setAccepted(address(money[i]), true);
        }
        for (uint256 i = 0; i < 3; ++i) {
            _grant(owner, account(i));
            _trust(owner, account(3 + i));
            providerTrusted[account(3 + i)] = true;
        }
        algorithmTrusted = true;
    }

    function _request(address consumer, ComputeJobs.Terms memory terms, uint256 which) private {
        ++attempts;
        bool valid = _standing(consumer, terms.provider) && terms.algorithm == ALGORITHM && !jobs.paused();
        valid = valid && (terms.price == 0 || tokens.isAccepted(terms.token));
        valid = valid && terms.arbiter != consumer && terms.arbiter != terms.provider;
        bytes32 id = jobs.jobId(consumer, terms);
        vm.prank(consumer);
        try jobs.request(terms, Escrow.Permit(0, 0, 0, 0)) returns (bytes32 made) {
            assert(valid && made == id);
            told.push(
                Told(
                    id,
                    ComputeJobs.Status.Requested,
                    consumer,
                    terms.provider,
                    terms.arbiter,
                    which,
                    terms.price,
                    terms.acceptUntil,
                    terms.runSeconds,
                    terms.reviewSeconds
                )
            );
            open[which] += terms.price;
            ++requested;
            ++accepted;
        } catch {
            assert(!valid);
        }
    }

    function _act(uint256 which, Act chosen, address caller) private {
        ++attempts;
        Told storage job = told[which];
        bool valid = _fits(chosen, job) && (chosen == Act.TimeOut || caller == _partyOf(chosen, job));
        if (chosen == Act.Accept) valid = valid && !jobs.paused() && _standing(job.consumer, job.provider);
        (bool success,) = address(this).call(abi.encodeCall(this.performed, (chosen, job.id, caller)));
        assert(success == valid);
        if (!success) return;
        ++accepted;
        ++succeeded[chosen];
        bool paid = chosen == Act.Release || (chosen == Act.TimeOut && job.status == ComputeJobs.Status.Committed);
        job.status = paid ? ComputeJobs.Status.Released : _to(chosen);
        if (chosen == Act.Accept) job.deadline = block.timestamp + job.runSeconds;
        if (chosen == Act.Commit) job.deadline = block.timestamp + job.reviewSeconds;
        if (chosen == Act.Dispute) job.deadline = block.timestamp + 14 days;
        if (_isOpen(job.status)) return;
        // `_perform` gives the provider 40 % where it divides.
        uint256 share = paid ? job.price : chosen == Act.Resolve ? uint256(job.price) * 4_000 / 10_000 : 0;
        uint256 royalty = share * ROYALTY_BPS / 10_000;
        open[job.token] -= job.price;
        owed[job.token][job.consumer] += job.price - share;
        owed[job.token][OWNER] += royalty;
        owed[job.token][job.provider] += share - royalty;
    }

    /// @dev For the handler itself: so a refusal is an answer.
    function performed(Act chosen, bytes32 id, address caller) external {
        assert(msg.sender == address(this));
        _perform(chosen, id, caller);
    }

    function _standing(address consumer, address provider) private view returns (bool) {
        return access.hasAccess(1, consumer, GRU) && algorithmTrusted && (providerTrusted[provider] || provider == owner);
    }

    /// @dev Whether an act is possible by state and time.
    function _fits(Act chosen, Told storage job) private view returns (bool) {
        if (chosen == Act.TimeOut) return _isOpen(job.status) && block.timestamp > job.deadline;
        return job.status == _from(chosen) && !(_hasTimeLimit(chosen) && block.timestamp > job.deadline);
    }

    function _partyOf(Act chosen, Told storage job) private view returns (address) {
        address party = _party(chosen);
        if (party == PROVIDER) return job.provider;
        if (party == ARBITER) return job.arbiter;
        return party == CONSUMER ? job.consumer : party;
    }

    function _isOpen(ComputeJobs.Status status) private pure returns (bool) {
        return status != ComputeJobs.Status.Absent && status <= ComputeJobs.Status.Disputed;
    }
}

contract ComputeJobsInvariantTest is ComputeJobsWorld {
    ComputeJobsHandler private handler;

    function setUp() public {
        handler = new ComputeJobsHandler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function targetSelectors() public view returns (FuzzSelector[] memory chosen) {
        chosen = new FuzzSelector[](1);
        bytes4[] memory selectors = new bytes4[](14);
        // The steps of jobs several times, as most calls should be such.
        for (uint256 i = 0; i < 3; ++i) {
            selectors[i] = ComputeJobsHandler.request.selector;
            selectors[3 + i] = ComputeJobsHandler.act.selector;
        }
        (selectors[6], selectors[7]) = (ComputeJobsHandler.endByTime.selector, ComputeJobsHandler.withdraw.selector);
        (selectors[8], selectors[9]) = (ComputeJobsHandler.distrust.selector, ComputeJobsHandler.revoke.selector);
        (selectors[10], selectors[11]) = (ComputeJobsHandler.sell.selector, ComputeJobsHandler.setPolicy.selector);
        (selectors[12], selectors[13]) = (ComputeJobsHandler.pauseOrDelist.selector, ComputeJobsHandler.tell.selector);
        chosen[0] = FuzzSelector(address(handler), selectors);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    /// @dev In one, as each invariant is a campaign of its own.
    function invariant_the_escrow_holds_what_is_open_and_owed_and_no_job_leaves_its_story() public view {
        for (uint256 i = 0; i < handler.TOKENS(); ++i) {
            LocalCredit token = handler.moneyOf(i);
            uint256 obligations = handler.open(i);
            for (uint256 j = 0; j < handler.ACCOUNTS(); ++j) {
                uint256 credited = handler.jobs_().creditOf(address(token), handler.account(j));
                assert(credited == handler.owed(i, handler.account(j)));
                obligations += credited;
            }
            assert(token.balanceOf(address(handler.jobs_())) == obligations);
        }
        for (uint256 i = 0; i < handler.count(); ++i) {
            ComputeJobsHandler.Told memory story = handler.story(i);
            ComputeJobs.Job memory job = handler.jobs_().get(story.id);
            assert(job.status == story.status && job.price == story.price && job.deadline == story.deadline);
        }
    }

    /// @dev No state holds money for ever: at the end everything ends by time, while all is paused, and the escrow is empty. And a handler
    /// whose calls were mostly refused, or that left a way out, would prove little. (Replays of an old failure are short.)
    function afterInvariant() public {
        handler.endEverything();
        for (uint256 i = 0; i < handler.TOKENS(); ++i) {
            assert(handler.moneyOf(i).balanceOf(address(handler.jobs_())) == 0);
        }
        assert(handler.attempts() < 64 || handler.accepted() * 4 >= handler.attempts());
        for (uint256 i = 0; i < ACTS; ++i) {
            assert(handler.attempts() < 64 || handler.succeeded(Act(i)) > 1);
        }
        assert(handler.attempts() < 64 || (handler.requested() > 8 && handler.withdrawn() > 0));
    }
}
