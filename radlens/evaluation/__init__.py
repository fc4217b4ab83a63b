"""What makes a prediction or a map right."""

from radlens.evaluation.cdc import (
    LIMITS_UM,
    CdcVerdict,
    DiameterVerdict,
    Limit,
    Outcome,
    coverage,
    describe,
    rmse,
    skill,
    verdict,
)

__all__ = [
    "LIMITS_UM",
    "CdcVerdict",
    "DiameterVerdict",
    "Limit",
    "Outcome",
    "coverage",
    "describe",
    "rmse",
    "skill",
    "verdict",
]
