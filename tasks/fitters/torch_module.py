"""The module that is trained and exported: standardise, ask the network, give one value a row.

Imported where a PyTorch model is trained only.
"""

import numpy as np
import torch  # noqa: TID253  (this module is imported where a PyTorch model is trained only)


class Scored(torch.nn.Module):
    """A network between the standardisation of its inputs and the scale of the label."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self, network: torch.nn.Module, matrix: np.ndarray, labels: np.ndarray, *, binary: bool
    ) -> None:
        """Measure what to standardise by.

        Args:
            network: gives float32, shape (rows,) or (rows, 1), for standardised inputs.
            matrix: training inputs, float32, shape (rows, columns); NaN is missing.
            labels: float32, shape (rows,).
            binary: whether the network gives logits of a probability.
        """
        super().__init__()
        self.network, self.binary = network, binary
        mean, deviation = _moments(matrix)
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("deviation", torch.from_numpy(deviation))
        self.label_mean = 0.0 if binary else float(labels.mean(dtype=np.float64))
        self.label_deviation = 1.0 if binary else float(labels.std(dtype=np.float64)) or 1.0

    def raw(self, rows: torch.Tensor) -> torch.Tensor:
        """What the network gives: logits, or standardised values; shape (rows,)."""
        known = (rows - self.mean) / self.deviation
        given: torch.Tensor = self.network(torch.where(torch.isnan(rows), 0.0, known))
        return given.reshape(-1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The prediction of each row; shape (rows,)."""
        given = self.raw(rows)
        if self.binary:
            return torch.sigmoid(given)
        return given * self.label_deviation + self.label_mean


def _moments(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the known values of each column; 0 and 1 where there are none."""
    known = ~np.isnan(matrix)
    counts = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, matrix, 0).sum(axis=0, dtype=np.float64) / counts
    squares = np.where(known, (matrix - mean) ** 2, 0).sum(axis=0, dtype=np.float64) / counts
    deviation = np.sqrt(squares)
    return mean.astype(np.float32), np.where(deviation > 0, deviation, 1).astype(np.float32)
