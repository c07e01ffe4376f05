"""Which models learn which targets from which features: what a plan asks of its features, and of its own parts because of its model."""

from rexis.errors import MalformedMessageError
from rexis.models.cox import CoxConfig
from rexis.models.features import FeatureSpec
from rexis.models.targets import OneOf, Survival
from rexis.protocol.federation_plans import TrainingPlan


def check_task(features: FeatureSpec, plan: TrainingPlan) -> None:
    """Return if a model of this plan can be trained on these features.

    Raises:
        MalformedMessageError: it can not; the message names the rule.
    """
    model = plan.model.tabular
    if model.widths[0] != len(features.names):
        raise MalformedMessageError(
            f"federation config: expected a model of {len(features.names)} inputs, one for each feature, got {model.widths[0]}"
        )
    if isinstance(model, CoxConfig) != isinstance(features.target, Survival):
        raise MalformedMessageError("federation config: expected a target of time and event with the family cox, and only with it")
    if isinstance(model, CoxConfig):
        _check_survival(plan)
    if isinstance(features.target, OneOf):
        levels = len(features.target.levels)
        if model.outputs != levels and (levels, model.outputs) != (2, 1):
            raise MalformedMessageError(
                f"federation config: expected a model of {levels} outputs, one for each level of the target, got {model.outputs}"
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
