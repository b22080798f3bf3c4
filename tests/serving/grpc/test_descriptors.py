"""That every field is the one of the clients' generated code: tests/serving/test_clients.py."""

import pytest

from serving.grpc.descriptors import message_classes
from serving.grpc.schema import INFERENCE
from serving.grpc.tensors import MESSAGES


def test_messages_are_written_and_read_by_the_c_code_of_protobuf():
    request = MESSAGES["ModelInferRequest"](model_name="m", inputs=[{"name": "x", "shape": [1, 2]}])
    request.parameters["timeout"].int64_param = 5
    again = MESSAGES["ModelInferRequest"].FromString(request.SerializeToString())
    assert again == request
    assert "_upb" in type(request).__mro__[1].__module__


def test_a_second_pool_of_the_same_messages_is_no_clash():
    assert message_classes("inference", INFERENCE).keys() == MESSAGES.keys()


@pytest.mark.parametrize(
    "text", ["message A { string a 1; }", "message A { map<int32, A> a = 1; }"]
)
def test_text_that_is_no_message_is_an_error(text):
    with pytest.raises(ValueError, match="stands where"):
        message_classes("x", text)
