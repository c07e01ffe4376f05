"""A Cox model as the same linear layer with a bias of zero: the form in which encrypted inference takes it (family `logistic`).

A key that shifts inputs is taken back in the bias, which a Cox model does not have. The output is the log-hazard w x as before.
"""

from io import BytesIO

import numpy as np

from rexis.agent.federation.contribution import MODEL_DTYPE, read_model
from rexis.errors import UnexpectedMessageError
from rexis.models.cox import CoxConfig
from rexis.models.mlp import LogisticConfig
from rexis.models.spec import ModelSpec
from rexis.protocol.batch import write_file
from rexis.protocol.federation_plans import TrainingPlan
from rexis.protocol.file_spec import FileSpec


def linear_form(plan: TrainingPlan, content: bytes, record: bytes) -> bytes:
    """File of a Cox model's linear layer with a bias.

    Args:
        content: file of the Cox model; record: of it, from the chain.

    Raises:
        UnexpectedMessageError: a model of another family.
        MalformedMessageError, DigestMismatchError: not that model's file.
    """
    if not isinstance(plan.model.config, CoxConfig):
        raise UnexpectedMessageError(f"expected a model of the family cox, got {plan.model.family}, which is keyed as it is")
    tensors = read_model(plan, content, record) | {"0.bias": np.zeros(1, dtype=np.float32)}
    spec, stream = ModelSpec(LogisticConfig(plan.model.config.inputs)), BytesIO()
    write_file(stream, FileSpec.of_model("model", spec.digest(), spec.shapes, MODEL_DTYPE), tensors)
    return stream.getvalue()
