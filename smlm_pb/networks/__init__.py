"""Networks that predict, for every pixel, a few candidate points."""

from smlm_pb.networks.build import NetworkSettings, PointNetwork, build_network
from smlm_pb.networks.field import PointField
from smlm_pb.networks.map_network import MapNetwork
from smlm_pb.networks.offset_regression import OffsetRegressionNetwork
from smlm_pb.networks.tiling import predict_tiled

__all__ = [
    "MapNetwork",
    "NetworkSettings",
    "OffsetRegressionNetwork",
    "PointField",
    "PointNetwork",
    "build_network",
    "predict_tiled",
]
