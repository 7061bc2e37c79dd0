"""An encoder as a user would write it, named by ``package.module:callable`` in the tests."""

from torch import nn

from asrprune.transducer.encoder import zero_padding


class Skipper(nn.Module):
    """Every second frame through one linear layer; nothing is inherited from the library."""

    def __init__(self, num_features: int, width: int = 8, scale: float = 1.0):
        super().__init__()
        self.linear = nn.Linear(num_features, width)
        self.scale = scale
        self.output_dim = width
        self.subsampling = 2

    def output_lengths(self, x_lens):
        return (x_lens + 1) // 2

    def forward(self, x, x_lens):
        return self.scale * self.linear(x[:, ::2]), self.output_lengths(x_lens)


def no_encoder(num_features: int):
    return nn.Linear(num_features, 3)


def passing_on(num_features: int, **options):
    return Skipper(num_features, **options)


def without_arguments():
    return Skipper(10)


def defective(num_features: int, **options):
    raise TypeError("a defect")


class Trimmer(nn.Module):
    """Every fourth frame, without padding: three frames give none, as in some convolutions."""

    def __init__(self, num_features: int, width: int = 8):
        super().__init__()
        self.linear = nn.Linear(num_features, width)
        self.output_dim = width
        self.subsampling = 4

    def output_lengths(self, x_lens):
        return ((x_lens - 3) // 4).clamp(min=0)

    def forward(self, x, x_lens):
        lengths = self.output_lengths(x_lens)
        return zero_padding(self.linear(x[:, 3::4]), lengths), lengths
