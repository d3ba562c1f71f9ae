"""Caffe, in which the authors released their models: .caffemodel, .prototxt and mean.binaryproto.

`convert.py` reads and writes; `protobuf.py`, `schema.py` and `prototxt.py` know the files, `operations.py` and
`layers.py` what is in them, `deploy.py` and `graph.py` which of our nets that is, `weights.py` how the values
correspond; `executor.py` runs a net as Caffe would.
"""

from resnets.models.interop.caffe.convert import check_written, read, write
from resnets.models.interop.caffe.mean import centre, read_mean, write_mean

__all__ = ["centre", "check_written", "read", "read_mean", "write", "write_mean"]
