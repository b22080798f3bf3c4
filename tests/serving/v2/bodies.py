"""Bodies of V2 requests, good and broken, for tests that look for a body that breaks a decoder."""

import json

from hypothesis import strategies as st

from serving.v2.datatypes import DATATYPES

COLUMNS = (
    "weather__temperature",
    "weather__wind_speed",
    "planes__seats",
    "distance_miles",
    "scheduled_hour",
)
KEYS = ("origin", "tailnum", "scheduled_departure")

good_numbers = st.one_of(
    st.floats(-3e38, 3e38), st.integers(-(2**70), 2**70), st.none(), st.just(-0.0)
)
odd_values = st.one_of(
    st.booleans(),
    st.text(max_size=3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(10**300, 10**310),
    st.just([1]),
    st.just({"a": 1}),
)
sizes = st.one_of(st.integers(1, 3), st.sampled_from([0, -1, 5, 2**63, 10**30, True, "1", None]))


@st.composite
def usual_documents(draw):
    """What a client sends every day: one tensor, or one a column."""
    rows = draw(st.integers(1, 3))
    datatype = draw(st.sampled_from(["FP32", "FP64"]))
    if draw(st.booleans()):
        data = draw(st.lists(good_numbers, min_size=5 * rows, max_size=5 * rows))
        inputs = [{"name": "features", "shape": [rows, 5], "datatype": datatype, "data": data}]
    else:
        shape = draw(st.sampled_from([[rows], [rows, 1]]))
        inputs = [
            {
                "name": name,
                "shape": shape,
                "datatype": datatype,
                "data": draw(st.lists(good_numbers, min_size=rows, max_size=rows)),
            }
            for name in COLUMNS
        ]
    return {"inputs": inputs, **draw(st.fixed_dictionaries({}, optional={"id": st.text()}))}


@st.composite
def odd_documents(draw):
    """The same with one thing changed, which may or may not be wrong."""
    document = draw(usual_documents())
    tensor = draw(st.sampled_from(document["inputs"]))
    tensor.update(
        draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "name": st.sampled_from([*COLUMNS, *KEYS, "features", "", 5, None]),
                    "shape": st.one_of(st.lists(sizes, max_size=3), odd_values),
                    "datatype": st.one_of(st.sampled_from([*DATATYPES, "FP8"]), odd_values),
                    "data": st.one_of(st.lists(good_numbers | odd_values, max_size=6), odd_values),
                    "parameters": st.one_of(
                        st.fixed_dictionaries({"binary_data_size": sizes}), odd_values
                    ),
                    "more": odd_values,
                },
            )
        )
    )
    extra = {"id": odd_values, "parameters": parameters, "outputs": outputs, "more": odd_values}
    return document | draw(st.fixed_dictionaries({}, optional=extra))


parameters = st.one_of(
    odd_values,
    st.dictionaries(
        st.sampled_from(["timeout", "priority", "binary_data_output", "mine"]),
        st.one_of(odd_values, st.integers(-1, 10**9)),
    ),
)
outputs = st.one_of(
    odd_values,
    st.lists(
        st.fixed_dictionaries(
            {"name": st.sampled_from(["prediction", "status__planes", "y", 5])},
            optional={"parameters": parameters},
        ),
        max_size=3,
    ),
)


@st.composite
def bodies(draw):
    """JSON of such documents, sometimes with bytes changed, cut, said twice or put behind it."""
    document = draw(st.one_of(usual_documents(), odd_documents()))
    body = json.dumps(document, indent=draw(st.sampled_from([None, 1]))).encode()
    for _ in range(draw(st.integers(0, 2))):
        begin, end = sorted(draw(st.tuples(*[st.integers(0, len(body))] * 2)))
        middle = draw(
            st.sampled_from(
                [b"", body[begin:end] * 2, b'"', b"\\", b"\xff", b",", b"1e999", b"NaN"]
            )
        )
        body = body[:begin] + middle + body[end:]
    return body
