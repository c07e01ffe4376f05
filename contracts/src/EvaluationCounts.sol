// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title How many evaluations there were on a data set
/// @notice Whoever tries until a result pleases, or until a seed does, leaves a number here that only grows.
/// @dev A count begins with the data owner's consent and is his, so nobody else raises it.
abstract contract EvaluationCounts {
    enum Status {
        Absent,
        Open,
        Run,
        Seeded,
        Attested,
        Disputed,
        Revoked,
        Expired
    }

    /// @notice How many evaluations ever came to each state; `started` counts those that the data owner agreed to.
    struct Counts {
        uint32 started;
        uint32 runs;
        uint32 seeded;
        uint32 attested;
        uint32 disputed;
        uint32 revoked;
        uint32 expired;
    }

    mapping(bytes32 subject => Counts) private _counts;

    /// @notice Evaluations on this data record that its owner agreed to; nobody else moves these numbers.
    function evaluationsOf(address dataOwner, bytes32 dataRecord) external view returns (Counts memory) {
        return _counts[_subject(dataOwner, dataRecord, 0)];
    }

    /// @notice The same, of one model.
    function evaluationsOfModel(address dataOwner, bytes32 dataRecord, bytes32 model) external view returns (Counts memory) {
        return _counts[_subject(dataOwner, dataRecord, model)];
    }

    /// @notice Evaluations on this data record whoever agreed to them: an upper bound, which shows an owner who uses several accounts,
    /// and which strangers can raise.
    function evaluationsOfRecord(bytes32 dataRecord) external view returns (Counts memory) {
        return _counts[_subject(address(0), dataRecord, 0)];
    }

    /// @dev Keeps: no number ever falls.
    /// @return number How many of this owner's evaluations on this record were started.
    function _count(address dataOwner, bytes32 dataRecord, bytes32 model, Status reached) internal returns (uint32 number) {
        Counts storage ofOwner = _counts[_subject(dataOwner, dataRecord, 0)];
        _raise(ofOwner, reached);
        _raise(_counts[_subject(dataOwner, dataRecord, model)], reached);
        _raise(_counts[_subject(address(0), dataRecord, 0)], reached);
        return ofOwner.started;
    }

    function _raise(Counts storage counts, Status reached) private {
        if (reached == Status.Open) ++counts.started;
        else if (reached == Status.Run) ++counts.runs;
        else if (reached == Status.Seeded) ++counts.seeded;
        else if (reached == Status.Attested) ++counts.attested;
        else if (reached == Status.Disputed) ++counts.disputed;
        else if (reached == Status.Revoked) ++counts.revoked;
        else if (reached == Status.Expired) ++counts.expired;
    }

    /// @dev Zero stands for every owner, and for every model.
    function _subject(address dataOwner, bytes32 dataRecord, bytes32 model) private pure returns (bytes32) {
        return keccak256(abi.encode(dataOwner, dataRecord, model));
    }
}
