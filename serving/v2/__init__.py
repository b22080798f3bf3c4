"""The Open Inference Protocol, version 2: tensors in, tensors out.

datatypes.py  what each datatype may hold
tensors.py    one input, from JSON or bytes to numbers
inputs.py     from inputs to rows: columns, one tensor of features, or entity keys
request.py    a request, and the query that it asks
rest.py       a REST request from its bytes, binary tensors included
fast.py       the usual REST request in a few microseconds
outputs.py    from an answer to a response
codec.py      all of that as a codec for the HTTP lanes
metadata.py   what the server and its models say of themselves
routes.py     the calls besides inference

gRPC (``serving.grpc``) shares everything but the bytes. Docs: docs/open_inference_protocol.md.
"""
