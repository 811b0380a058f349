"""Training data in slices (S3T, arXiv 2406.16257): the ledger, its Merkle roots, and the exact sum of what may stay.

    sequence      W(o, j) = W0 + stages 1..j of order o         stage i saw the slices o_1 .. o_i and the replay images
    independent   W(K)    = W0 + sum of the stages in K          a stage saw one slice and the replay images

W0 are the base model's weights, and a stage is a low-rank adapter ``scale B A`` on some layers. Whoever withdraws a
slice gets a model without every stage that saw it. Importing this module imports no torch.
"""

from __future__ import annotations

from publisher.api.slices.ledger import (
    DELETED,
    FOLDER,
    LEDGER,
    PREDICATE,
    BaseWeights,
    Composition,
    DataSlice,
    Ledger,
    Order,
    Remains,
    ReplaySet,
    Stage,
    SumRule,
    chain,
    weights_of,
)
from publisher.api.slices.merkle import Receipt, leaf_of, receipts, salt_of
from publisher.api.slices.updates import (
    LayerUpdate,
    read_stage,
    read_updates,
    recompose,
    require_fit,
    same_bits,
    update_bytes,
)

__all__ = [
    "DELETED",
    "FOLDER",
    "LEDGER",
    "PREDICATE",
    "BaseWeights",
    "Composition",
    "DataSlice",
    "LayerUpdate",
    "Ledger",
    "Order",
    "Receipt",
    "Remains",
    "ReplaySet",
    "Stage",
    "SumRule",
    "chain",
    "leaf_of",
    "read_stage",
    "read_updates",
    "receipts",
    "recompose",
    "require_fit",
    "salt_of",
    "same_bits",
    "update_bytes",
    "weights_of",
]
