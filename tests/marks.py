"""Tests that need what not every machine has."""

import pytest
import torch

from smlm_pb.networks.integer_convolution import has_integer_operations

NEEDS_CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
NEEDS_INTEGERS = pytest.mark.skipif(not has_integer_operations(), reason="torch has no integer convolutions here")
