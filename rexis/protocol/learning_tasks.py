"""Which models learn which targets from which features: what a plan asks of its features, and of its own parts because of its model."""

from rexis.errors import MalformedMessageError
from rexis.models.cox import CoxConfig
from rexis.models.features import FeatureSpec
from rexis.models.spec import TextConfig
from rexis.models.targets import OneOf, Survival
from rexis.models.text import BertLoraConfig
from rexis.protocol.federation_plans import TrainingPlan

# Texts of one step through a whole encoder.
MAX_LORA_BATCH = 256


def check_task(features: FeatureSpec, plan: TrainingPlan | None) -> None:
    """Return if a model of this plan can be trained on these features; without a plan, if statistics of them can be summed.

    Raises:
        MalformedMessageError: it can not; the message names the rule.
    """
    config = None if plan is None else plan.model.config
    if isinstance(config, TextConfig) != (features.text is not None):
        raise MalformedMessageError(
            "federation config: expected an input of kind text with a model of the family bert-head or bert-lora, and only with it"
        )
    if plan is None:
        return
    if isinstance(config, CoxConfig) != isinstance(features.target, Survival):
        raise MalformedMessageError("federation config: expected a target of time and event with the family cox, and only with it")
    if isinstance(config, CoxConfig):
        _check_survival(plan)
    if isinstance(config, TextConfig):
        if plan.standardisation is not None:
            raise MalformedMessageError("standardisation: expected null: the outputs of a text's encoder are taken as they are")
        outputs = config.outputs
        if isinstance(config, BertLoraConfig):
            _check_lora(plan)
    else:
        model = plan.model.tabular
        outputs = model.outputs
        if model.widths[0] != len(features.names):
            raise MalformedMessageError(
                f"federation config: expected a model of {len(features.names)} inputs, one for each feature, got {model.widths[0]}"
            )
    levels = len(features.target.levels) if isinstance(features.target, OneOf) else outputs
    if outputs != levels and (levels, outputs) != (2, 1):
        raise MalformedMessageError(
            f"federation config: expected a model of {levels} outputs, one for each level of the target, got {outputs}"
        )


def _check_lora(plan: TrainingPlan) -> None:
    if plan.batch_size is None or plan.batch_size > MAX_LORA_BATCH:
        raise MalformedMessageError(f"bert-lora: expected a batch_size of 1 to {MAX_LORA_BATCH}: what a step keeps of each text is large")
    if plan.privacy is not None and plan.privacy.mechanism == "dp-sgd":
        raise MalformedMessageError(
            "bert-lora: privacy does not go with dp-sgd: gradients of single texts are not built for factors inside an encoder; take "
            "bert-head, or the mechanism skellam"
        )


def _check_survival(plan: TrainingPlan) -> None:
    """The partial likelihood is no sum over records: each event is compared with everybody who was at risk."""
    if plan.privacy is not None and plan.privacy.mechanism == "dp-sgd":
        raise MalformedMessageError(
            "cox: privacy does not go with dp-sgd: a patient is in the risk sets of others, so that clipping gradients of single patients "
            "does not bound what one of them changes; the mechanism skellam bounds the whole update"
        )
    if plan.batch_size is not None:
        raise MalformedMessageError("cox: expected batch_size null: in a mini-batch other patients would be at risk than at the site")
