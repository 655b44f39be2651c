"""Images for continual learning: the sources that tasks are drawn from, and the packer of JPEG trees."""

from klopf.data.pack import pack
from klopf.data.packed import PackedImages
from klopf.data.source import ImageSource, open_source
from klopf.data.synthetic import SyntheticImages

__all__ = ["ImageSource", "PackedImages", "SyntheticImages", "open_source", "pack"]
