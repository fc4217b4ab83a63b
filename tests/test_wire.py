"""Arrays as JSON values."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from radlens.errors import InvalidInput
from radlens.wire import array_from_json, array_to_json


@given(
    arrays.arrays(
        st.sampled_from(["float32", "float64", "uint8", "uint32", ">i4"]), arrays.array_shapes(min_side=0, max_dims=3)
    )
)
def test_arrays_survive_json(array):
    """Bit for bit, with shape and kind; the byte order becomes little endian."""
    found = array_from_json(json.loads(json.dumps(array_to_json(array))))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("<")


def test_the_encoding_is_named():
    """So that a reader without radlens can decode it."""
    value = array_to_json(np.zeros((2, 3), dtype=np.float32))
    assert (value["encoding"], value["shape"], value["dtype"]) == ("npy+zlib+base64", [2, 3], "float32")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoding": "raw"}, r"array must be encoded as npy\+zlib\+base64, got another encoding"),
        ({"data": "AAAA"}, r"array data must be complete, got damaged ones"),
        ({"data": "?"}, "got damaged ones"),
        ({"data": None}, "got damaged ones"),
        ({"shape": [3, 2]}, r"array must have the shape it states, got \[2, 3\]"),
    ],
)
def test_damaged_arrays_are_refused(change, message):
    """Each with its reason."""
    with pytest.raises(InvalidInput, match=message):
        array_from_json(array_to_json(np.zeros((2, 3))) | change)
