"""Expectations that Great Expectations does not have, for pandas tables with the columns of dedupe's manifest.

Importing this module registers them; a suite that `miwake validate --write-suite` wrote needs that before it is
loaded. What each one means is said where it is judged: `pipelines.validate.rules` names the function.
"""

from typing import Any, ClassVar

from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import BatchExpectation
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider

from pipelines.validate.rules import CHECKS


class MiwakeTable(TableMetricProvider):  # type: ignore[misc]
    """The table itself."""

    metric_name = "table.miwake"

    # the decorator makes a class method of it, and the engine calls it by position
    @metric_value(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(
        cls: Any,  # noqa: N805
        execution_engine: Any,
        metric_domain_kwargs: Any,
        metric_value_kwargs: Any,  # noqa: ARG002
        metrics: Any,  # noqa: ARG002
        runtime_configuration: Any,  # noqa: ARG002
    ) -> Any:
        return execution_engine.get_compute_domain(metric_domain_kwargs, domain_type=MetricDomainTypes.TABLE)[0]


class _CheckExpectation(BatchExpectation):  # type: ignore[misc]
    """An expectation whose verdict is the judgement of the same name, given its fields."""

    metric_dependencies: ClassVar[tuple[str, ...]] = ("table.miwake",)

    def _validate(self, metrics: Any, runtime_configuration: Any = None, execution_engine: Any = None) -> Any:  # noqa: ARG002
        table = metrics["table.miwake"]
        arguments = {key: getattr(self, key) for key in self.success_keys}
        found = CHECKS[type(self).__name__].function(table, **arguments)
        return {
            "success": found.success,
            "result": {
                "observed_value": found.observed,
                "unexpected_count": len(found.rows) or len(found.labels),
                "unexpected_index_list": table.index[found.rows].tolist(),
                "unexpected_labels": list(found.labels),
            },
        }


class ExpectClassesToHavePictures(_CheckExpectation):
    min_value: int
    success_keys: ClassVar[tuple[str, ...]] = ("min_value",)


class ExpectClassesToBeBalanced(_CheckExpectation):
    max_value: float
    success_keys: ClassVar[tuple[str, ...]] = ("max_value",)


class ExpectLabelsToBeWrittenWell(_CheckExpectation):
    success_keys: ClassVar[tuple[str, ...]] = ()


class ExpectLabelsNotToLookAlike(_CheckExpectation):
    success_keys: ClassVar[tuple[str, ...]] = ()


class ExpectFewCopies(_CheckExpectation):
    max_value: float
    success_keys: ClassVar[tuple[str, ...]] = ("max_value",)


class ExpectFewNearCopies(_CheckExpectation):
    max_value: float
    success_keys: ClassVar[tuple[str, ...]] = ("max_value",)


class ExpectFewConflicts(_CheckExpectation):
    max_value: float
    success_keys: ClassVar[tuple[str, ...]] = ("max_value",)


class ExpectFewRefusals(_CheckExpectation):
    by: str
    max_value: float
    success_keys: ClassVar[tuple[str, ...]] = ("by", "max_value")


class ExpectFactorsToBeTexts(_CheckExpectation):
    success_keys: ClassVar[tuple[str, ...]] = ()


class ExpectLicensesToBeAllowed(_CheckExpectation):
    allowed: list[str]
    success_keys: ClassVar[tuple[str, ...]] = ("allowed",)


class ExpectPicturesToBeTraceable(_CheckExpectation):
    success_keys: ClassVar[tuple[str, ...]] = ()


class ExpectLabelsNotToFollowOrigins(_CheckExpectation):
    by: str
    max_value: float
    success_keys: ClassVar[tuple[str, ...]] = ("by", "max_value")


class ExpectLabelsNotToDrift(_CheckExpectation):
    compared: str
    reference: dict[str, float]
    max_value: float
    success_keys: ClassVar[tuple[str, ...]] = ("compared", "reference", "max_value")


class ExpectFigureNotToDrift(_CheckExpectation):
    column: str
    compared: str
    edges: list[float]
    below: list[float]
    up_to: list[float]
    max_value: float
    success_keys: ClassVar[tuple[str, ...]] = ("column", "compared", "edges", "below", "up_to", "max_value")
