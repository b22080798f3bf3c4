import subprocess
import sys

import pytest

from serving.grpc.descriptors import message_classes
from serving.grpc.schema import INFERENCE
from serving.grpc.tensors import MESSAGES

GENERATED = {
    "Triton's": "tritonclient.grpc.service_pb2",
    "KServe's": "kserve.protocol.grpc.grpc_predict_v2_pb2",
}
COMPARE = """
import importlib
from serving.grpc.tensors import MESSAGES
theirs = importlib.import_module({module!r}).DESCRIPTOR.message_types_by_name
differs = []

def compare(path, ours, theirs):
    for field in theirs.fields:
        own = ours.fields_by_number.get(field.number)
        if own is None or (own.name, own.type, own.is_repeated) != (
            field.name, field.type, field.is_repeated
        ):
            differs.append(f"{{path}}.{{field.name}}")
        elif field.message_type:
            compare(f"{{path}}.{{field.name}}", own.message_type, field.message_type)

for name in MESSAGES:
    if name in theirs:
        compare(name, MESSAGES[name].DESCRIPTOR, theirs[name])
print(sorted(differs))
"""


@pytest.mark.parametrize(
    ("whose", "known"),
    [
        ("Triton's", []),
        # Field 1 of a load is read as either one's name; see serving/grpc/schema.py.
        (
            "KServe's",
            ["RepositoryModelLoadRequest.model_name", "RepositoryModelUnloadRequest.model_name"],
        ),
    ],
)
def test_every_field_is_that_of_the_generated_code(whose, known):
    code = COMPARE.format(module=GENERATED[whose])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(known)


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
