"""The summary of a load test."""

import math
import os
import platform
from typing import Any

__all__ = ["conclude"]


def conclude(environment: Any, model: str, prediction: str, *explanations: str) -> None:
    """Print the cost of each kind of answer in medians of a prediction, and the machine; fail if an answer was wrong.

    Args:
        environment: locust environment at the end of the test.
        model: name of the model.
        prediction: name of the prediction requests, the unit of comparison.
        explanations: names of the other requests.
    """
    print(f"\n{model}; {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    unit = environment.stats.get(prediction, "POST").median_response_time or math.nan
    for name in (prediction, *explanations):
        entry = environment.stats.get(name, "POST")
        if entry.num_requests:
            low, high = entry.median_response_time, entry.get_response_time_percentile(0.95)
            print(f"{name}: {low / unit:.1f} predictions; 95 % within {high / low:.1f} medians of {low} ms")
    if environment.stats.total.num_failures:
        environment.process_exit_code = 1
