"""Expectations that Great Expectations does not have, for pandas tables with the columns of dedupe's manifest.

Importing this module registers them; a suite that `miwake validate --write-suite` wrote needs that before it is
loaded. Each is made from a function of a table in the modules of the rules (`pipelines.validate.rule.expectation`).
"""

from types import new_class
from typing import Any, ClassVar

from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import BatchExpectation
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider

from pipelines.validate import rules  # noqa: F401 (its modules fill CHECKS)
from pipelines.validate.rule import CHECKS


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
    """An expectation whose verdict is the check of the same name, given its fields."""

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


def _expectation_class(name: str, fields: dict[str, Any]) -> Any:
    annotations = {**fields, "success_keys": ClassVar[tuple[str, ...]]}
    body = {"__annotations__": annotations, "__module__": __name__, "success_keys": tuple(fields)}
    return new_class(name, (_CheckExpectation,), exec_body=lambda namespace: namespace.update(body))


EXPECTATIONS = {name: _expectation_class(name, check.fields) for name, check in CHECKS.items()}
"""Their classes by name."""
