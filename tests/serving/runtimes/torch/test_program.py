"""What a network's file can and cannot say."""

import io
import json
import os
import pickle  # noqa: TID251  (to make what must never be opened)
import zipfile

import numpy as np
import pytest
import torch  # noqa: TID253
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import RuntimeFailed
from serving.runtimes.torch.operators import ALLOWED, operator
from serving.runtimes.torch.runtime import TorchRuntime
from serving.runtimes.torch.safetensors import NotSafetensors, read_header, written
from tasks.fitters.torch_program import program_of

DOUBLE = {"to": "twice", "operator": "aten.mul.Tensor", "arguments": [{"value": "x"}, 2.0]}
TAKE = {"to": "taken", "operator": "aten.select.int", "arguments": [{"value": "twice"}, 1, 0]}


def file_of(calls, output="taken", tensors=None, **changes):
    document = {"columns": 2, "input": "x", "output": output, "calls": calls} | changes
    return written(tensors or {}, {"program": json.dumps(document)})


def test_the_calls_are_made_in_their_order():
    runtime = TorchRuntime(file_of([DOUBLE, TAKE]))
    rows = np.array([[1, 5], [3, 7]], np.float32)
    np.testing.assert_array_equal(runtime.predict(rows), [2, 6])


@pytest.mark.parametrize(
    ("calls", "says"),
    [
        ([DOUBLE | {"operator": "aten.add_.Tensor"}, TAKE], "'aten.add_.Tensor' is not allowed"),
        ([DOUBLE | {"operator": "aten.from_file.default"}, TAKE], "is not allowed in a bundle"),
        ([DOUBLE | {"operator": "aten.empty.memory_format"}, TAKE], "is not allowed"),
        ([DOUBLE | {"operator": "aten.resize_.default"}, TAKE], "is not allowed"),
        ([DOUBLE | {"operator": "prim.device.default"}, TAKE], "is not allowed"),
        ([DOUBLE | {"operator": "os.system"}, TAKE], "'os.system' is not allowed"),
        ([DOUBLE | {"operator": "aten.mul.__class__"}, TAKE], "has no operator"),
        ([DOUBLE | {"operator": "aten.mul.out"}, TAKE], "changes its arguments"),
        ([TAKE, DOUBLE], "'twice' is used before it is given"),
        ([DOUBLE, DOUBLE, TAKE], "'twice' is given twice"),
        ([DOUBLE], "its output 'taken' is computed by no call"),
        ([DOUBLE | {"arguments": [{"import": "os"}]}, TAKE], "{'import': 'os'} is no argument"),
        ([DOUBLE | {"arguments": [{"constant": "F7"}]}, TAKE], "{'constant': 'F7'} is no argument"),
        ([DOUBLE | {"code": "1"}, TAKE], "another format"),
    ],
)
def test_a_graph_that_says_anything_else_is_refused_before_it_computes(calls, says):
    with pytest.raises(RuntimeFailed, match=f"PyTorch could not load the model: .*{says}"):
        TorchRuntime(file_of(calls))


def test_no_allowed_operator_writes_reads_files_or_draws():
    never = {"from_file", "empty", "set_", "resize", "as_strided", "data", "bernoulli", "rand"}
    assert not ALLOWED & never
    for base in ALLOWED:
        for overload in getattr(torch.ops.aten, base).overloads():
            try:
                found = operator(f"aten.{base}.{overload}")
            except ValueError:
                continue
            assert not found._schema.is_mutable
            draws = torch.Tag.nondeterministic_seeded in found.tags
            assert not draws or base == "scaled_dot_product_attention"  # only for its dropout


def test_an_operator_that_fails_is_an_error_of_the_request():
    runtime = TorchRuntime(file_of([DOUBLE, TAKE | {"arguments": [{"value": "twice"}, 1, 9]}]))
    with pytest.raises(RuntimeFailed, match="PyTorch could not predict: "):
        runtime.predict(np.ones((2, 2), np.float32))


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def hostile_archive(path, canary):
    """A ``.pt2`` whose weights and sample inputs are pickles that make a folder."""
    torch.export.save(torch.export.export(torch.nn.Linear(3, 1), (torch.zeros(2, 3),)), path)
    evil = io.BytesIO()
    torch.save(_Touch(canary), evil)
    archive = io.BytesIO()
    with zipfile.ZipFile(path) as good, zipfile.ZipFile(archive, "w") as bad:
        for name in good.namelist():
            data = good.read(name)
            if name.endswith("model_weights_config.json"):
                told = json.loads(data)
                for weight in told["config"].values():
                    weight["use_pickle"] = True
                data = json.dumps(told).encode()
            elif "/weights/weight_" in name or name.endswith(".pt"):
                data = evil.getvalue()
            bad.writestr(name, data)
    return archive.getvalue()


def test_a_hostile_archive_in_the_place_of_a_model_is_refused_and_nothing_executes(tmp_path):
    canary = tmp_path / "canary"
    data = hostile_archive(str(tmp_path / "good.pt2"), canary)
    for file in (data, pickle.dumps(_Touch(canary)), b"\x08\0\0\0\0\0\0\0" + data):
        with pytest.raises(RuntimeFailed, match="could not load the model"):
            TorchRuntime(file)
    assert not canary.exists()
    (tmp_path / "evil.pt2").write_bytes(data)
    with pytest.raises(OSError, match="canary"):  # the second weight's turn: it is there already
        torch.export.load(str(tmp_path / "evil.pt2"))  # which is why nothing here calls it
    assert canary.exists()


@pytest.mark.parametrize(
    ("header", "body", "says"),
    [
        (b"", b"", "cannot be read"),
        (b"[]", b"", "cannot be read"),
        (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', b"1234", "end at byte"),
        (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', b"1234", "are not those of"),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', b"12345678", "begins at byte"),
        (b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', b"1234", "is no shape"),
        (b'{"a":{"dtype":"F9","shape":[1],"data_offsets":[0,4]}}', b"1234", "none of the types"),
        (b'{"a":{"dtype":"U8","shape":[1e9],"data_offsets":[0,4]}}', b"1234", "is no shape"),
    ],
)
def test_a_file_whose_header_does_not_fit_it_is_refused(header, body, says):
    header += b" " * (-len(header) % 8)
    with pytest.raises(NotSafetensors, match=says):
        read_header(len(header).to_bytes(8, "little") + header + body)


def test_two_tensors_in_one_place_and_a_length_beyond_the_file_are_refused():
    one = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = f'{{"a":{one},"b":{one}}}'.encode()
    header += b" " * (-len(header) % 8)
    with pytest.raises(NotSafetensors, match="begins at byte"):
        read_header(len(header).to_bytes(8, "little") + header + b"1234")
    with pytest.raises(NotSafetensors, match="longer than the file"):
        read_header(b"\xff" * 8 + b"{}")


def test_what_is_written_is_read_back_in_place():
    tensors = {
        "flags": np.array([True, False, True]),
        "wide": np.arange(6, dtype=np.float64).reshape(2, 3),
        "none": np.empty((0, 4), np.float32),
        "half": np.arange(3, dtype=np.float16),
    }
    data = written(tensors, {"about": "a test"})
    found, text = read_header(data)
    assert text == {"about": "a test"}
    for name, tensor in found.items():
        flat = np.frombuffer(data, tensors[name].dtype, tensor.values, tensor.offset)
        np.testing.assert_array_equal(flat.reshape(tensor.shape), tensors[name])


class Everything(torch.nn.Module):
    """A module with most of what tabular networks are made of."""

    def __init__(self):
        super().__init__()
        self.codes = torch.nn.Embedding(50, 4)
        self.token = torch.nn.Linear(1, 8)
        self.norm = torch.nn.Sequential(torch.nn.LayerNorm(12), torch.nn.GELU(approximate="tanh"))
        self.out = torch.nn.Linear(12, 1)

    def forward(self, rows):
        known = torch.nan_to_num(rows)
        codes = self.codes(known[:, 0].abs().clamp(0, 49).long())
        tokens = self.token(known.unsqueeze(-1))
        tokens = torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        joined = torch.cat([tokens.mean(1), codes], dim=1).view(rows.shape[0], -1)
        return self.out(self.norm(joined.masked_fill(joined < -5, float("-inf")).clamp(-6, 6)))


def test_a_kept_network_answers_as_the_module_does():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        module = Everything().eval()
    rows = np.random.default_rng(2).normal(size=(256, 6)).astype(np.float32) * 9
    runtime = TorchRuntime(program_of(module, 6))
    with torch.no_grad():
        wanted = module(torch.from_numpy(rows)).numpy().reshape(-1)
    np.testing.assert_allclose(runtime.predict(rows), wanted, rtol=1e-5, atol=1e-6)


SOUND = file_of([DOUBLE, TAKE], tensors={"w": np.arange(4, dtype=np.float32)})
CHANGES = st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), max_size=6)


def open_or_refuse(file):
    """Whatever the file says, it is opened or refused: no other error, no crash."""
    try:
        TorchRuntime(file).predict(np.ones((2, 2), np.float32))
    except RuntimeFailed:
        return False
    return True


@given(changes=CHANGES, end=st.integers(0, len(SOUND)))
@settings(max_examples=100, deadline=None)
def test_a_damaged_file_is_opened_or_refused(changes, end):
    damaged = bytearray(SOUND)
    for place, value in changes:
        damaged[place] = value
    open_or_refuse(bytes(damaged))
    assert open_or_refuse(bytes(damaged[:end])) <= (end == len(SOUND))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["value", "constant", "x"]), inner, max_size=2)
    ),
    max_leaves=6,
)


@given(arguments=st.lists(JSON, max_size=4), base=st.sampled_from(["mul.Tensor", "select.int"]))
@settings(max_examples=100, deadline=None)
def test_any_arguments_are_computed_or_refused(arguments, base):
    call = {"to": "taken", "operator": f"aten.{base}", "arguments": arguments}
    open_or_refuse(file_of([call]))
