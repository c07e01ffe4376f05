"""Flower's own SecAgg+ workflow and client mod, and its plaintext FedAvg, in one process: runs in Flower's environment, without Rexis.

`.venv/flower/bin/python benchmarks/flower_round.py '{"n": 20, "d": 1000000, "dropouts": 0}'` prints one JSON object. A grid that stands in
for the network hands messages over as they are: no serialisation and no transport on its account. The strategy that the workflow asks for
parameters and tells the result does nothing more. Secrets are shared with everybody, threshold 0.67.
"""

import gc
import json
import logging
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import Key, Stage
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.compat.common.recorddict_compat import fitres_to_recorddict, parameters_to_arrayrecord
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.server.client_proxy import ClientProxy
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.serverapp import Grid
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from flwr.supercore.task_identity import TaskIdentity

THRESHOLD = 0.67
CLIPPING_RANGE = 8.0
MAX_WEIGHT = 1000.0
EXAMPLES = 500


class Site(ClientProxy):
    """What a strategy knows of a client; the workflow speaks to the grid."""

    def __init__(self, node_id):
        super().__init__(str(node_id))
        self.node_id = node_id

    get_properties = get_parameters = fit = evaluate = reconnect = None


class OneRound(FedAvg):
    """Every site trains; the result is kept as it is."""

    def __init__(self, sites):
        super().__init__()
        self.sites, self.result = sites, None

    def configure_fit(self, server_round, parameters, client_manager):
        return [(site, FitIns(parameters, {})) for site in self.sites]

    def aggregate_fit(self, server_round, results, failures):
        self.result = results[0][1].parameters
        return self.result, {}


class StandInGrid(Grid):
    """Runs each client's mod where a message to it is sent."""

    def __init__(self, n, d, dropped):
        self.contexts = {node: Context(1, node, {}, RecordDict(), {}) for node in range(1, n + 1)}
        self.d, self.dropped = d, dropped
        self.client_s = self.aside_s = 0.0
        self.uploaded = 0

    def send_and_receive(self, messages, *, timeout=None):
        replies = []
        for message in messages:
            start = time.process_time()
            node = message.metadata.dst_node_id
            # One object goes to all of them, and each takes the stage out of it.
            records = {name: ConfigRecord(dict(record)) for name, record in message.content.config_records.items()}
            (stage,) = (record[Key.STAGE] for record in records.values() if Key.STAGE in record)
            message.content = RecordDict({**message.content.array_records, **message.content.metric_records, **records})
            if node in self.dropped and stage == Stage.COLLECT_MASKED_VECTORS:
                replies.append(Message(Error(1, "dropped out"), reply_to=message))
                self.aside_s += time.process_time() - start
                continue
            self.aside_s += time.process_time() - start
            start, before = time.process_time(), self.aside_s
            reply = secaggplus_mod(message, self.contexts[node], self._train)
            self.client_s += time.process_time() - start - (self.aside_s - before)
            start = time.process_time()
            self.uploaded += _size(reply.content)
            replies.append(reply)
            self.aside_s += time.process_time() - start
        return replies

    def _train(self, message, context):
        start = time.process_time()
        update = ndarrays_to_parameters([update_of(context.node_id, self.d)])
        result = FitRes(Status(Code.OK, ""), update, EXAMPLES, {})
        reply = Message(fitres_to_recorddict(result, keep_input=False), reply_to=message)
        self.aside_s += time.process_time() - start
        return reply

    set_run = run = create_message = get_node_ids = push_messages = pull_messages = None


def update_of(number, d):
    """f32 [d], of norm about 0.8."""
    return np.random.default_rng(number).standard_normal(d, dtype=np.float32) * np.float32(0.8 / d**0.5)


def masked_round(n, d, dropouts):
    """One round of SecAgg+: CPU seconds of the sites (their mean) and of the server, and bytes that a site uploads per parameter."""
    sites = [Site(node) for node in range(1, n + 1)]
    dropped = set(range(n - dropouts + 1, n + 1))
    strategy, grid = OneRound(sites), StandInGrid(n, d, dropped)
    state = RecordDict(
        {
            MAIN_CONFIGS_RECORD: ConfigRecord({WorkflowKey.CURRENT_ROUND: 1}),
            MAIN_PARAMS_RECORD: parameters_to_arrayrecord(ndarrays_to_parameters([np.zeros(d, np.float32)]), keep_input=False),
        }
    )
    context = LegacyContext(Context(1, 0, {}, state, {}), strategy=strategy)
    workflow = SecAggPlusWorkflow(1.0, THRESHOLD, clipping_range=CLIPPING_RANGE, max_weight=MAX_WEIGHT)
    start = time.process_time()
    workflow(grid, context)
    total = time.process_time() - start - grid.aside_s
    # It also returns in silence when it has given up.
    (mean,) = parameters_to_ndarrays(strategy.result)
    staying = n - dropouts
    plain = np.zeros(d)
    for node in range(1, staying + 1):
        plain += update_of(node, d) / staying
    error = float(np.abs(mean - plain).max())
    if error > 1e-3:
        raise AssertionError(f"expected the sites' mean, got one that is {error} off")
    return {
        "client_s": grid.client_s / n,
        "server_s": total - grid.client_s,
        "total_s": total,
        "bytes_per_parameter": grid.uploaded / staying / d,
    }


def plaintext_round(n, d):
    """FedAvg of Flower's records as protobuf messages, without masks: CPU seconds of a site, and of the server that parses and averages."""
    start = time.process_time()
    content = RecordDict({"arrays": ArrayRecord([update_of(1, d)]), "metrics": MetricRecord({"num-examples": EXAMPLES})})
    message = recorddict_to_proto(content).SerializeToString()
    client_s = time.process_time() - start
    del content
    start = time.process_time()
    records = [recorddict_from_proto(ProtoRecordDict.FromString(message)) for _ in range(n)]
    aggregate_arrayrecords(records, "num-examples")
    server_s = time.process_time() - start
    return {"client_s": client_s, "server_s": server_s, "total_s": n * client_s + server_s, "bytes_per_parameter": len(message) / d}


def _size(content):
    values = [value for record in content.config_records.values() for value in record.values()]
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return sum(len(item) if isinstance(item, bytes | str) else 8 for item in flat)


def main():
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0
    cell = json.loads(sys.argv[1])
    figures = masked_round(cell["n"], cell["d"], cell["dropouts"])
    # Of this program alone: ru_maxrss goes on from the one that started it.
    (kibibytes,) = map(int, re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE))
    peak = kibibytes * 1024 / 1e6
    gc.collect()
    plain = plaintext_round(cell["n"], cell["d"]) if cell.get("plaintext", True) else None
    print(json.dumps({"version": version("flwr"), "secagg": figures | {"peak_rss_mb": peak}, "fedavg": plain}))


if __name__ == "__main__":
    main()
